//! TLS of the servers: the flags, and the files behind them. Knows nothing about what is served.

use std::io;
use std::path::{Path, PathBuf};

use chorus_coordinator::config::{Config, TlsConfig, WorkerTlsConfig};
use chorus_net::{ServerSettings, ServerSetup, ServerTls};

use super::reload::Hangups;
use crate::client::{identity, in_terms_of_flags, read_pem};
use crate::failure::one_line;

/// What a server shows and wants.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct ServerTlsArgs {
    /// Serve over TLS with this certificate, and those between it and its CA (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Refuse whoever shows no certificate of these CAs (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
}

/// What a coordinator trusts and shows to workers.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct WorkerTlsArgs {
    /// Trust workers at https:// addresses of these CAs (PEM)
    #[arg(long, value_name = "FILE")]
    worker_ca: Option<PathBuf>,
    /// Show this certificate to workers that ask for one (PEM)
    #[arg(long, value_name = "FILE", requires = "worker_key", requires = "worker_ca")]
    worker_cert: Option<PathBuf>,
    /// The private key of --worker-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "worker_cert")]
    worker_key: Option<PathBuf>,
    /// The name in the workers' certificates, where it is not the host of their addresses
    #[arg(long, value_name = "NAME", requires = "worker_ca")]
    worker_server_name: Option<String>,
}

impl ServerTlsArgs {
    /// In place of `[tls]`, where there are such flags.
    pub(super) fn config(&self) -> io::Result<Option<TlsConfig>> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let client_ca = self.tls_client_ca.as_deref().map(from_here).transpose()?;
        Ok(Some(TlsConfig { certificate: from_here(certificate)?, key: from_here(key)?, client_ca }))
    }

    /// What the files hold, found good; nothing where there are no such flags.
    fn read(&self) -> anyhow::Result<Option<ServerSetup>> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let identity = identity(certificate, key)?;
        let client_ca = self.tls_client_ca.as_deref().map(read_pem).transpose()?;
        let settings = ServerSettings { identity, client_ca };
        settings.prepare().map(Some).map_err(|error| in_terms_of_flags(&error))
    }

    /// TLS as these flags have it, for a process without a configuration to read again.
    ///
    /// # Errors
    /// A file that can't be used.
    pub(super) fn tls(&self) -> anyhow::Result<Option<ServerTls>> {
        Ok(self.read()?.map(ServerTls::new))
    }

    /// Reads the files again at each SIGHUP, for connections that begin later. Never resolves.
    pub(super) async fn renew(&self, tls: ServerTls, mut hangups: Hangups) {
        loop {
            hangups.next().await;
            // A few small files: that holds up a connection no longer than a page that is swapped in.
            match self.read() {
                Ok(Some(setup)) => {
                    tls.replace(setup);
                    tracing::info!("SIGHUP: the certificates were read anew");
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = one_line(&error);
                    tracing::error!(reason, "SIGHUP: the certificates stay as they are");
                }
            }
        }
    }
}

impl WorkerTlsArgs {
    /// In place of `[worker_tls]`, where there are such flags.
    pub(super) fn config(&self) -> io::Result<Option<WorkerTlsConfig>> {
        let Some(ca) = &self.worker_ca else {
            return Ok(None);
        };
        Ok(Some(WorkerTlsConfig {
            ca: from_here(ca)?,
            certificate: self.worker_cert.as_deref().map(from_here).transpose()?,
            key: self.worker_key.as_deref().map(from_here).transpose()?,
            server_name: self.worker_server_name.clone(),
        }))
    }
}

/// Tokens that everybody on the way can read are secrets for a short time.
pub(super) fn warn_of_plain_text(config: &Config) {
    if config.auth.is_none() || config.tls.is_some() {
        return;
    }
    for address in [Some(config.listen), config.admin].into_iter().flatten() {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "tokens come in as plain text: whoever is on their way can read them; [tls] hides them");
        }
    }
}

/// What a flag says is meant from where the process runs, and not from where its configuration lies.
pub(super) fn from_here(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}
