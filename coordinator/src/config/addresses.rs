//! Where a member's replicas are: addresses, or one name that stands for as many as there are. Knows nothing about members.

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};

/// One or several `http://host:port`, or one `dns://host:port`, whose name is looked up again and again: every address that it
/// has is a replica, as with a headless service of Kubernetes. Over TLS `https://host:port` and `dns+https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct Addresses(Vec<String>);

/// What addresses mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// These replicas and no others.
    Fixed(Vec<String>),
    /// As many as the name has addresses.
    Name {
        /// What is looked up.
        host: String,
        /// Where each of them listens.
        port: u16,
        /// Whether they speak TLS there.
        tls: bool,
    },
}

/// Why addresses can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// Not an address of a worker.
    #[error(
        "the address is {0:?}; allowed: http://host:port, such as http://127.0.0.1:50061, or dns://name:port for \
         all addresses of a name; over TLS https://host:port or dns+https://name:port"
    )]
    Address(String),
    /// None at all.
    #[error("there is no address; allowed: at least one")]
    None,
    /// Two replicas in one place.
    #[error("the address {0:?} is there twice; allowed: every address once")]
    Twice(String),
    /// A name among others.
    #[error(
        "{0:?} stands beside other addresses; allowed: one dns://name:port alone, or any number of http://host:port"
    )]
    NameAmongOthers(String),
}

/// As files and flags have it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl Addresses {
    /// As given; [`Addresses::location`] checks them.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// As given.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether they, or some of them, are spoken with over TLS.
    pub fn want_tls(&self) -> bool {
        let schemes = self.0.iter().filter_map(|address| Some(address.split_once(':')?.0));
        schemes
            .into_iter()
            .any(|scheme| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("dns+https"))
    }

    /// What they mean.
    ///
    /// # Errors
    /// The first one that can't be used.
    pub fn location(&self) -> Result<Location, AddressesError> {
        let addresses = self.0.as_slice();
        if let [only] = addresses
            && let Some(name) = dns_name(only)
        {
            return Ok(name);
        }
        for (place, address) in addresses.iter().enumerate() {
            if dns_name(address).is_some() {
                return Err(AddressesError::NameAmongOthers(address.clone()));
            }
            if host_and_port(address, "http").or_else(|| host_and_port(address, "https")).is_none() {
                return Err(AddressesError::Address(address.clone()));
            }
            if addresses.iter().take(place).any(|other| other == address) {
                return Err(AddressesError::Twice(address.clone()));
            }
        }
        if addresses.is_empty() {
            return Err(AddressesError::None);
        }
        Ok(Location::Fixed(addresses.to_vec()))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// `dns://name:port` or `dns+https://name:port`, where the name is no address itself.
fn dns_name(address: &str) -> Option<Location> {
    let (tls, found) = match host_and_port(address, "dns") {
        Some(found) => (false, found),
        None => (true, host_and_port(address, "dns+https")?),
    };
    let (host, port) = found;
    (!host.starts_with('[')).then_some(Location::Name { host, port, tls })
}

/// `scheme://host:port` and nothing more: no other scheme, no path, no user.
fn host_and_port(address: &str, scheme: &str) -> Option<(String, u16)> {
    let uri = address.parse::<Uri>().ok()?;
    let authority = uri.authority()?;
    let port = authority.port_u16().filter(|port| *port > 0)?;
    let is_bare = uri.scheme_str() == Some(scheme)
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    is_bare.then(|| (authority.host().to_owned(), port))
}

impl From<OneOrSeveral> for Addresses {
    fn from(given: OneOrSeveral) -> Self {
        match given {
            OneOrSeveral::One(address) => Self(vec![address]),
            OneOrSeveral::Several(addresses) => Self(addresses),
        }
    }
}

impl From<Addresses> for OneOrSeveral {
    fn from(addresses: Addresses) -> Self {
        match <[String; 1]>::try_from(addresses.0) {
            Ok([address]) => Self::One(address),
            Err(addresses) => Self::Several(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(addresses: &[&str]) -> Result<Location, String> {
        Addresses::new(addresses.iter().map(|&address| address.to_owned()))
            .location()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_replicas_and_a_name_is_as_many_as_it_has() {
        let two = ["http://[::1]:50061", "https://worker.local:1/"];
        assert_eq!(location(&two), Ok(Location::Fixed(two.map(str::to_owned).to_vec())));
        for (address, tls) in
            [("dns://alto.chorus.svc:50061", false), ("dns+https://alto.chorus.svc:50061", true)]
        {
            let name = Location::Name { host: "alto.chorus.svc".to_owned(), port: 50061, tls };
            assert_eq!(location(&[address]), Ok(name));
        }
    }

    #[test]
    fn an_address_is_http_with_a_host_and_a_port() {
        for address in [
            "",
            "h:1",
            "127.0.0.1:50061",
            "https://h",
            "dns+http://h:1",
            "ftp://h:1",
            "http://h",
            "http://:1",
            "http://h:0",
            "http://h:99999",
            "http://h:1/path",
            "http://h:1?x=1",
            "http://me@h:1",
            "http:/h:1",
            "http://h h:1",
            "dns://h",
            "dns:h:1",
        ] {
            let error = location(&[address]).unwrap_err();
            assert_eq!(error, AddressesError::Address(address.to_owned()).to_string());
        }
    }

    #[test]
    fn several_that_do_not_go_together_are_refused() {
        let error = location(&["http://h:1", "http://h:2", "http://h:1"]).unwrap_err();
        assert_eq!(error, "the address \"http://h:1\" is there twice; allowed: every address once");
        let error = location(&["http://h:1", "dns://h:2"]).unwrap_err();
        assert!(error.contains("\"dns://h:2\" stands beside other addresses"), "{error}");
        assert_eq!(location(&[]).unwrap_err(), "there is no address; allowed: at least one");
    }
}
