//! [`Address`]: where a server is, and how it is spoken with. Knows nothing about what is asked.

use std::fmt;
use std::str::FromStr;

use chorus_coordinator::config::Compression;
use chorus_net::ClientTls;
use tonic::transport::Uri;

/// The address of a server: `host:port`, with or without `http://` or `https://`.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(super) uri: Uri,
    /// Whether it was said how it is spoken with, or is up to what else is said.
    pub(super) has_scheme: bool,
    pub(super) tls: Option<Tls>,
    /// Goes with every request.
    pub(super) token: Option<Secret>,
    /// How messages are packed, there and back.
    pub(super) compression: Compression,
}

/// What is never shown.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How TLS is spoken there.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) client: ClientTls,
    /// Whom the server has to prove to be, where that is not its host.
    pub(super) name: Option<String>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let has_scheme = text.contains("://");
        let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|_| wrong_address())?;
        let only_authority = uri.path() == "/" && uri.query().is_none();
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || uri.port_u16().is_none() || !only_authority {
            return Err(wrong_address());
        }
        Ok(Self { uri, has_scheme, tls: None, token: None, compression: Compression::None })
    }
}

impl Address {
    /// The same in TLS.
    pub(super) fn as_https(&self) -> Self {
        let mut parts = self.uri.clone().into_parts();
        parts.scheme = "https".parse().ok();
        // Another scheme makes no URI a wrong one.
        let uri = Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone());
        Self { uri, has_scheme: true, ..self.clone() }
    }

    /// Whether what goes there stays on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri.to_string().trim_end_matches('/'))
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        // A socket address is always a valid authority.
        let uri = Uri::try_from(format!("http://{address}")).unwrap_or_default();
        Self { uri, has_scheme: true, tls: None, token: None, compression: Compression::None }
    }
}

fn wrong_address() -> String {
    "expected HOST:PORT, http://HOST:PORT or https://HOST:PORT".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_with_or_without_a_scheme() {
        for (given, shown) in [
            ("127.0.0.1:50051", Some("http://127.0.0.1:50051")),
            ("http://127.0.0.1:50051/", Some("http://127.0.0.1:50051")),
            ("https://127.0.0.1:1", Some("https://127.0.0.1:1")),
            ("[::1]:7", Some("http://[::1]:7")),
            ("gpu-3.internal:50051", Some("http://gpu-3.internal:50051")),
            ("127.0.0.1", None),
            ("https://127.0.0.1", None),
            ("ftp://127.0.0.1:1", None),
            ("127.0.0.1:1/path", None),
            ("127.0.0.1:99999", None),
            ("", None),
        ] {
            let parsed = given.parse::<Address>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), shown, "{given:?}");
        }
    }

    #[test]
    fn the_same_address_in_tls_has_another_scheme() {
        let address: Address = "[::1]:7".parse().unwrap();
        assert_eq!(address.as_https().to_string(), "https://[::1]:7");
        assert!(address.as_https().is_https() && !address.is_https());
    }
}
