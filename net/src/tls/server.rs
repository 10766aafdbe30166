//! [`ServerTls`]: how a server proves who it is, and whom it lets in. Knows nothing about sockets.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::half_open::HalfOpen;
use super::material::{Identity, TlsError, authorities, provider};
use super::{HTTP_1, HTTP_2, InUse};

/// What a server shows and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Who it is.
    pub identity: Identity,
    /// Those who vouch for clients, as PEM: whoever has no certificate of theirs is refused. Absent, no certificate is asked for.
    pub client_ca: Option<Vec<u8>>,
}

/// Settings that were found good.
#[derive(Clone, Debug)]
pub struct ServerSetup(Arc<ServerConfig>);

/// TLS at a server's ports. Clones are the same: what is replaced is replaced for all connections that begin later.
#[derive(Clone, Debug)]
pub struct ServerTls {
    in_use: InUse<ServerConfig>,
    pub(super) half_open: Arc<HalfOpen>,
    /// What is spoken.
    protocol: &'static [u8],
}

impl ServerSettings {
    /// Whether they can be used.
    ///
    /// # Errors
    /// The part that can't, and why.
    pub fn prepare(&self) -> Result<ServerSetup, TlsError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::of_identity(&error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(authorities("client_ca", pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| TlsError::new("client_ca", error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(self.identity.chain()?, self.identity.key()?)
            .map_err(|error| TlsError::of_identity(&error))?;
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        // Connections are long-lived; a session that was resumed would not be looked at again.
        config.send_tls13_tickets = 0;
        Ok(ServerSetup(Arc::new(config)))
    }
}

impl ServerTls {
    /// With what is in use at first.
    #[must_use]
    pub fn new(setup: ServerSetup) -> Self {
        Self { in_use: InUse::new(setup.0), half_open: Arc::default(), protocol: HTTP_2 }
    }

    /// The same at a port where HTTP/1.1 is spoken; what is replaced is replaced for both.
    #[must_use]
    pub fn for_http_1(&self) -> Self {
        Self { protocol: HTTP_1, ..self.clone() }
    }

    /// For connections that begin from now on; those that there are stay.
    pub fn replace(&self, setup: ServerSetup) {
        self.in_use.replace(setup.0);
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut config = self.in_use.get();
        if self.protocol != HTTP_2 {
            // Certificates and the like are shared.
            Arc::make_mut(&mut config).alpn_protocols = vec![self.protocol.to_vec()];
        }
        TlsAcceptor::from(config)
    }
}
