//! [`ReconfigureError`]: why a configuration was not changed. Knows nothing about how one is changed.

use crate::config::{ConfigError, Frozen, SecretsError};
use crate::link::InvalidAddress;
use crate::weights::{Mismatch, WeightsError};

/// Why a configuration was not changed; what was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum ReconfigureError {
    /// There is nothing to read again.
    #[error("there is no file to read again: the coordinator was started without a configuration file")]
    NoSource,
    /// What was read is no configuration.
    #[error("{0}")]
    Unreadable(String),
    /// What was asked for can't be a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It would change what can't be.
    #[error(transparent)]
    Frozen(#[from] Frozen),
    /// Somebody else was faster.
    #[error(
        "expected_revision: {expected} is not in force; allowed: {in_force}, what is: look at what has changed, and \
         ask again"
    )]
    Revision {
        /// What the caller knows.
        expected: u64,
        /// What there is.
        in_force: u64,
    },
    /// Workers that are new can't be reached or can't be members; each member with the reason.
    #[error("{}; nothing was changed (allow_down changes it all the same)", not_up(.0))]
    NotUp(Vec<(String, String)>),
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
    /// Learned weights of other models than the members host.
    #[error("weights: the learned weights are of another ensemble")]
    OtherEnsemble(#[from] Mismatch),
    /// Certificates, keys or tokens that can't be used.
    #[error(transparent)]
    Security(#[from] SecretsError),
    /// The coordinator stops.
    #[error("the coordinator is shutting down")]
    ShuttingDown,
}

fn not_up(absent: &[(String, String)]) -> String {
    let each = absent.iter().map(|(name, reason)| format!("member {name:?} is not up: {reason}"));
    each.collect::<Vec<_>>().join("; ")
}
