//! What proves who is who, as it is in use: certificates at the server's ports and towards workers, and tokens. A change of the configuration
//! replaces it for whoever comes next.
//!
//! Knows nothing about files, or about how connections come in.

mod gate;
mod tokens;

use std::sync::{Arc, PoisonError, RwLock};

use chorus_net::{ClientSetup, ClientTls, ServerSetup, ServerTls};

pub(crate) use gate::Gate;
pub use tokens::TokensError;
pub(crate) use tokens::{Scope, TokenId, Tokens};

use crate::config::{Config, SecretsError};

/// Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Security {
    /// At the ports of clients and operators; plain text without it.
    pub(crate) server: Option<ServerTls>,
    /// Towards workers at addresses of TLS.
    pub(crate) workers: Option<ClientTls>,
    /// Whoever comes with one of them; everybody without any.
    tokens: Option<TokensInUse>,
    open_reflection: bool,
}

/// The tokens that are known now. Clones are the same.
#[derive(Clone)]
pub(crate) struct TokensInUse(Arc<RwLock<Arc<Tokens>>>);

/// What will be in use, found good.
pub(crate) struct Setup {
    server: Option<ServerSetup>,
    workers: Option<ClientSetup>,
    tokens: Option<Arc<Tokens>>,
}

impl TokensInUse {
    fn get(&self) -> Arc<Tokens> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Security {
    /// # Errors
    /// What the configuration's files hold can't be used, or nobody has read them.
    pub(crate) fn new(config: &Config) -> Result<Self, SecretsError> {
        let Setup { server, workers, tokens } = Setup::new(config)?;
        Ok(Self {
            server: server.map(ServerTls::new),
            workers: workers.map(ClientTls::new),
            tokens: tokens.map(|tokens| TokensInUse(Arc::new(RwLock::new(tokens)))),
            open_reflection: config.auth.as_ref().is_some_and(|auth| auth.open_reflection),
        })
    }

    /// Of a port for this.
    pub(crate) fn gate(&self, scope: Scope) -> Gate {
        Gate::new(self.tokens.clone(), scope, self.open_reflection)
    }

    /// For whoever connects from now on. Whether there is TLS at all does not change.
    pub(crate) fn replace(&self, setup: Setup) {
        if let (Some(server), Some(setup)) = (&self.server, setup.server) {
            server.replace(setup);
        }
        if let (Some(workers), Some(setup)) = (&self.workers, setup.workers) {
            workers.replace(setup);
        }
        if let (Some(TokensInUse(in_use)), Some(tokens)) = (&self.tokens, setup.tokens) {
            *in_use.write().unwrap_or_else(PoisonError::into_inner) = tokens;
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
        let tokens = match (&config.auth, &secrets.tokens) {
            (None, _) => None,
            // Nor is everybody in place of those who have a token.
            (Some(_), None) => return Err(SecretsError::NotRead { table: "auth" }),
            (Some(_), Some(tokens)) => Some(Arc::clone(tokens)),
        };
        Ok(Self { server, workers, tokens })
    }
}
