//! [`ClientTls`]: whom a client trusts, and how it proves who it is. Knows nothing about sockets.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::material::{Identity, TlsError, authorities, provider};
use super::{HTTP_2, InUse};

/// What a client trusts and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Those who vouch for servers, as PEM; absent, those whom the system trusts.
    pub ca: Option<Vec<u8>>,
    /// Who the client is, for servers that ask.
    pub identity: Option<Identity>,
}

/// Settings that were found good.
#[derive(Clone, Debug)]
pub struct ClientSetup(Arc<ClientConfig>);

/// TLS to servers. Clones are the same: what is replaced is replaced for all connections that begin later.
#[derive(Clone, Debug)]
pub struct ClientTls(InUse<ClientConfig>);

impl ClientSettings {
    /// Whether they can be used.
    ///
    /// # Errors
    /// The part that can't, and why.
    pub fn prepare(&self) -> Result<ClientSetup, TlsError> {
        let roots = match &self.ca {
            Some(pem) => authorities("ca", pem)?,
            None => of_the_system()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::of_identity(&error))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain()?, identity.key()?)
                .map_err(|error| TlsError::of_identity(&error))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        Ok(ClientSetup(Arc::new(config)))
    }
}

impl ClientTls {
    /// With what is in use at first.
    #[must_use]
    pub fn new(setup: ClientSetup) -> Self {
        Self(InUse::new(setup.0))
    }

    /// For connections that begin from now on; those that there are stay.
    pub fn replace(&self, setup: ClientSetup) {
        self.0.replace(setup.0);
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.0.get())
    }
}

fn of_the_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = "the system trusts nobody; allowed: a file with the certificates of CAs";
        return Err(TlsError::new("ca", reason));
    }
    Ok(roots)
}
