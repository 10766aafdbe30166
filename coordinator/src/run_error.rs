//! [`RunError`]: why a coordinator could not run. Knows nothing about who runs it.

use crate::config::SecretsError;
use crate::link::InvalidAddress;
use crate::weights::WeightsError;

/// Why a coordinator could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A member's address can't be connected to.
    #[error("member {name:?} can't be reached")]
    Address {
        /// The member.
        name: String,
        /// Why.
        #[source]
        source: InvalidAddress,
    },
    /// The weights can't be shared.
    #[error("the members' weights can't be used")]
    Weights(#[from] WeightsError),
    /// Certificates, keys or tokens that can't be used.
    #[error("the security can't be set up")]
    Security(#[from] SecretsError),
    /// The descriptors for server reflection can't be read.
    #[error("server reflection can't be offered")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the server failed")]
    Serve(#[from] tonic::transport::Error),
}
