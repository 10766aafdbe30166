//! Where certificates, keys and tokens lie, and what these files hold once somebody has read them. Knows nothing about files themselves, or
//! about how connections are made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chorus_net::{ClientSettings, Identity, ServerSettings, TlsError};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::security::{Tokens, TokensError};

/// The `[tls]` table: TLS where clients and operators connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and its CA: PEM.
    pub certificate: PathBuf,
    /// Its private key: PEM.
    pub key: PathBuf,
    /// Those who vouch for clients: whoever shows no certificate of theirs is refused. Nobody is asked for one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// The `[worker_tls]` table: TLS to workers at `https://` addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerTlsConfig {
    /// Those who vouch for workers: PEM.
    pub ca: PathBuf,
    /// The coordinator's own certificate, for workers that ask: PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key: PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name in the workers' certificates, where it is not the host of their addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The `[auth]` table: who may ask and who may change the ensemble. Everybody may where it is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of tokens.
    pub tokens: PathBuf,
    /// Whether reflection needs no token. Health never does.
    #[serde(default)]
    pub open_reflection: bool,
}

/// What the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Secrets {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) server: Option<ServerSettings>,
    pub(crate) workers: Option<ClientSettings>,
}

/// Why certificates, keys or tokens can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file that can't be read.
    #[error("{key}: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// What is in the file is not what it should be.
    #[error("{table}.{source}")]
    Tls {
        /// Of which table.
        table: &'static str,
        /// What is wrong.
        source: TlsError,
    },
    /// The file of tokens is none.
    #[error("auth.tokens: {0}")]
    Tokens(#[from] TokensError),
    /// Nobody has read the files: [`Config::read_secrets`] does.
    #[error("{table}: its files were not read")]
    NotRead {
        /// Of which table.
        table: &'static str,
    },
}

/// A table that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// A certificate proves nothing without its key.
    #[error("worker_tls: certificate and key belong together; allowed: both, or neither")]
    HalfAnIdentity,
    /// Whom to trust is not guessed.
    #[error(
        "worker_tls.ca: the address of {name:?} is one of TLS, and it is not said whose certificates are trusted; \
         allowed: a file with those of the workers' CA"
    )]
    NoAuthority {
        /// Of the member, or the fallback.
        name: String,
    },
}

impl Config {
    /// Takes what the files hold that the configuration names. `read` reads one of them.
    ///
    /// # Errors
    /// A file that can't be read, or that holds something else.
    pub fn read_secrets<E: fmt::Display>(
        &mut self,
        read: impl Fn(&Path) -> Result<Vec<u8>, E>,
    ) -> Result<(), SecretsError> {
        let read = |key: &'static str, path: &Path| {
            read(path).map_err(|error| SecretsError::File { key, reason: error.to_string() })
        };
        let mut secrets = Secrets::default();
        if let Some(TlsConfig { certificate, key, client_ca }) = &self.tls {
            let identity =
                Identity { certificate: read("tls.certificate", certificate)?, key: read("tls.key", key)? };
            let client_ca = client_ca.as_ref().map(|path| read("tls.client_ca", path)).transpose()?;
            secrets.server = Some(ServerSettings { identity, client_ca });
        }
        if let Some(WorkerTlsConfig { ca, certificate, key, .. }) = &self.worker_tls {
            let identity = match (certificate, key) {
                (Some(certificate), Some(key)) => Some(Identity {
                    certificate: read("worker_tls.certificate", certificate)?,
                    key: read("worker_tls.key", key)?,
                }),
                _ => None,
            };
            secrets.workers = Some(ClientSettings { ca: Some(read("worker_tls.ca", ca)?), identity });
        }
        if let Some(AuthConfig { tokens, .. }) = &self.auth {
            let bytes = read("auth.tokens", tokens)?;
            let text = String::from_utf8(bytes).map_err(|_| SecretsError::File {
                key: "auth.tokens",
                reason: "it is no UTF-8 text".to_owned(),
            })?;
            secrets.tokens = Some(Arc::new(Tokens::from_toml(&text)?));
        }
        self.secrets = Arc::new(secrets);
        Ok(())
    }

    pub(super) fn check_security(&self) -> Result<(), SecurityError> {
        if let Some(WorkerTlsConfig { certificate, key, .. }) = &self.worker_tls
            && certificate.is_some() != key.is_some()
        {
            return Err(SecurityError::HalfAnIdentity);
        }
        let secure = self.connected().into_iter().find(|member| member.address.want_tls());
        match (secure, &self.worker_tls) {
            (Some(member), None) => Err(SecurityError::NoAuthority { name: member.name }),
            _ => Ok(()),
        }
    }

    /// What changes in the files with the next configuration, a sentence each.
    pub(super) fn changes_of_secrets(&self, next: &Self) -> Vec<String> {
        let (ours, theirs) = (&*self.secrets, &*next.secrets);
        let mut changes = Vec::new();
        if ours.server != theirs.server {
            changes.push("the certificates of the server were read anew".to_owned());
        }
        if ours.workers != theirs.workers {
            changes.push("the certificates for workers were read anew".to_owned());
        }
        if ours.tokens != theirs.tokens {
            changes.push("the tokens were read anew".to_owned());
        }
        changes
    }
}
