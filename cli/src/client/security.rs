//! The flags that say whom a client trusts and who it is. Knows nothing about connections.

use std::path::{Path, PathBuf};

use chorus_net::{ClientSettings, ClientTls, Identity, TlsError};

use super::address::{Address, Secret, Tls};
use crate::failure::{UsageError, warn};
use crate::text_file::{self, Text};

/// The most that a file of certificates or a key has, in bytes.
pub(crate) const LARGEST_PEM: u64 = 4 << 20;
/// The most that a file with a token has, in bytes.
const LARGEST_TOKEN: u64 = 4096;

/// What every client command takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS and tokens")]
pub(crate) struct SecurityArgs {
    /// Speak TLS, with a server of these CAs (PEM); without it https://HOST:PORT trusts those of the system
    #[arg(long, value_name = "FILE", env = "CHORUS_CLIENT_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// Show this certificate to a server that asks for one (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "CHORUS_CLIENT_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "CHORUS_CLIENT_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The name in the server's certificate, where it is not the host of the address
    #[arg(long, value_name = "NAME", env = "CHORUS_CLIENT_TLS_SERVER_NAME")]
    tls_server_name: Option<String>,
    /// Send the token in this file with every request
    #[arg(long, value_name = "FILE", env = "CHORUS_CLIENT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Address {
    /// The address as these flags have it.
    ///
    /// # Errors
    /// Flags that contradict the address, or a file that can't be used.
    pub(crate) fn secured_by(&self, security: &SecurityArgs) -> anyhow::Result<Self> {
        let SecurityArgs { tls_ca, tls_cert, tls_key, tls_server_name, token_file } = security;
        let wants_tls = tls_ca.is_some() || tls_cert.is_some() || tls_server_name.is_some();
        if wants_tls && self.has_scheme && !self.is_https() {
            let message = format!("{self} is plain text; with --tls-ca and the like it is https://HOST:PORT");
            return Err(UsageError(message).into());
        }
        let token = token_file.as_deref().map(read_token).transpose()?;
        if !wants_tls && !self.is_https() {
            if token.is_some() && !self.is_loopback() {
                warn(&format!(
                    "the token goes to {self} as plain text; https://HOST:PORT or --tls-ca hides it"
                ));
            }
            return Ok(Self { token, ..self.clone() });
        }
        let identity = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
            _ => None,
        };
        let ca = tls_ca.as_deref().map(read_pem).transpose()?;
        let setup = ClientSettings { ca, identity }.prepare().map_err(|error| in_terms_of_flags(&error))?;
        let mut address = self.as_https();
        address.token = token;
        address.tls = Some(Tls { client: ClientTls::new(setup), name: tls_server_name.clone() });
        Ok(address)
    }
}

/// The token is all that is in the file.
fn read_token(path: &Path) -> anyhow::Result<Secret> {
    let Text { text, origin } = text_file::read(path, LARGEST_TOKEN)?;
    let token = text.trim();
    anyhow::ensure!(
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "{origin} is no token; allowed: visible ASCII characters and nothing else"
    );
    Ok(Secret(token.to_owned()))
}

/// A certificate with its key.
///
/// # Errors
/// A file that can't be read.
pub(crate) fn identity(certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    Ok(Identity { certificate: read_pem(certificate)?, key: read_pem(key)? })
}

/// What a file of certificates or a key holds.
///
/// # Errors
/// It can't be read.
pub(crate) fn read_pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(text_file::read(path, LARGEST_PEM)?.text.into_bytes())
}

/// The parts of TLS under the names of their flags.
pub(crate) fn in_terms_of_flags(error: &TlsError) -> anyhow::Error {
    let flag = match error.part {
        "certificate" => "--tls-cert",
        "key" => "--tls-key",
        "client_ca" => "--tls-client-ca",
        _ => "--tls-ca",
    };
    anyhow::anyhow!("{flag}: {}", error.reason)
}

#[cfg(test)]
mod tests {
    use chorus_net::testing::{Authority, Validity};

    use super::*;

    #[test]
    fn flags_of_tls_make_an_address_one_of_tls_and_contradict_plain_text() {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::new("ours");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Some(path)
        };
        let Identity { certificate, key } = ca.vouch(&["me"], Validity::Now);
        let with_ca = SecurityArgs { tls_ca: file("ca.pem", &ca.pem()), ..SecurityArgs::default() };
        let both = SecurityArgs {
            tls_cert: file("me.pem", &certificate),
            tls_key: file("me.key", &key),
            ..with_ca.clone()
        };
        let secured = |address: &str, security: &SecurityArgs| {
            let address: Address = address.parse().unwrap();
            address.secured_by(security).map(|address| (address.to_string(), address.tls.is_some()))
        };
        let plain = ("http://h:1".to_owned(), false);
        let tls = ("https://h:1".to_owned(), true);
        assert_eq!(secured("h:1", &SecurityArgs::default()).unwrap(), plain);
        for address in ["h:1", "https://h:1"] {
            assert_eq!(secured(address, &with_ca).unwrap(), tls);
            assert_eq!(secured(address, &both).unwrap(), tls);
        }
        let contradiction = secured("http://h:1", &with_ca).unwrap_err();
        assert!(contradiction.is::<UsageError>(), "{contradiction}");
        let other =
            SecurityArgs { tls_key: file("ca.key", &ca.vouch(&["b"], Validity::Now).key), ..both.clone() };
        assert_eq!(
            secured("h:1", &other).unwrap_err().to_string(),
            "--tls-key: it is not that of the certificate"
        );
        let none = SecurityArgs { tls_ca: file("no.pem", b"nothing"), ..SecurityArgs::default() };
        let error = secured("h:1", &none).unwrap_err().to_string();
        assert!(error.starts_with("--tls-ca: there is none in it; allowed: "), "{error}");
    }
}
