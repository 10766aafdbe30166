//! What proves who is who, as it is in use: certificates at the server's ports and towards workers. A change of the configuration
//! replaces it for whoever comes next.
//!
//! Knows nothing about files, or about how connections come in.

use chorus_net::{ClientSetup, ClientTls, ServerSetup, ServerTls};

use crate::config::{Config, SecretsError};

/// Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Security {
    /// At the ports of clients and operators; plain text without it.
    pub(crate) server: Option<ServerTls>,
    /// Towards workers at addresses of TLS.
    pub(crate) workers: Option<ClientTls>,
}

/// What will be in use, found good.
pub(crate) struct Setup {
    server: Option<ServerSetup>,
    workers: Option<ClientSetup>,
}

impl Security {
    /// # Errors
    /// What the configuration's files hold can't be used, or nobody has read them.
    pub(crate) fn new(config: &Config) -> Result<Self, SecretsError> {
        let Setup { server, workers } = Setup::new(config)?;
        Ok(Self { server: server.map(ServerTls::new), workers: workers.map(ClientTls::new) })
    }

    /// For whoever connects from now on. Whether there is TLS at all does not change.
    pub(crate) fn replace(&self, setup: Setup) {
        if let (Some(server), Some(setup)) = (&self.server, setup.server) {
            server.replace(setup);
        }
        if let (Some(workers), Some(setup)) = (&self.workers, setup.workers) {
            workers.replace(setup);
        }
    }
}

impl Setup {
    /// # Errors
    /// As [`Security::new`].
    pub(crate) fn new(config: &Config) -> Result<Self, SecretsError> {
        let secrets = &config.secrets;
        let server = match (&config.tls, &secrets.server) {
            (None, _) => None,
            // Plain text in place of TLS is nothing to fall back on.
            (Some(_), None) => return Err(SecretsError::NotRead { table: "tls" }),
            (Some(_), Some(settings)) => {
                Some(settings.prepare().map_err(|source| SecretsError::Tls { table: "tls", source })?)
            }
        };
        let workers = match (&config.worker_tls, &secrets.workers) {
            (None, _) => None,
            (Some(_), None) => return Err(SecretsError::NotRead { table: "worker_tls" }),
            (Some(_), Some(settings)) => {
                Some(settings.prepare().map_err(|source| SecretsError::Tls { table: "worker_tls", source })?)
            }
        };
        Ok(Self { server, workers })
    }
}
