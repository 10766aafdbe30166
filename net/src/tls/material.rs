//! [`Identity`]: a certificate with its key, and how PEM texts are read. Knows nothing about who shows or trusts them.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore};

/// A certificate, with those between it and its CA behind it, and its private key: PEM, both.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first.
    pub certificate: Vec<u8>,
    /// PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Vec<u8>,
}

/// Why PEM texts can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct TlsError {
    /// Which of them: `certificate`, `key`, `client_ca` or `ca`.
    pub part: &'static str,
    /// What is wrong with it, and what is allowed.
    pub reason: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever logs it must not log the key.
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates("certificate", &self.certificate)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            PemError::NoItemsFound => TlsError::new(
                "key",
                "there is none in it; allowed: PEM of a private key that is not encrypted",
            ),
            error => TlsError::new("key", format!("it is no PEM: {error}")),
        })
    }
}

impl TlsError {
    pub(super) fn new(part: &'static str, reason: impl Into<String>) -> Self {
        Self { part, reason: reason.into() }
    }

    /// What rustls says of a certificate and its key.
    pub(super) fn of_identity(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Self::new("key", "it is not that of the certificate")
            }
            error => Self::new("certificate", format!("it can't be used: {error}")),
        }
    }
}

/// Those whose signatures are trusted: at least one.
pub(super) fn authorities(part: &'static str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(part, pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::new(part, format!("it is no certificate of a CA: {error}")))?;
    }
    Ok(roots)
}

fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if read.is_empty() => {
            Err(TlsError::new(part, "there is none in it; allowed: PEM of at least one certificate"))
        }
        Ok(read) => Ok(read),
        Err(error) => Err(TlsError::new(part, format!("it is no PEM: {error}"))),
    }
}

/// ring's, whatever else a process may have installed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
