//! [`Caller`]: between whom places are shared.
//!
//! Knows nothing about how they are shared.

use std::net::{IpAddr, Ipv6Addr};

use crate::security::TokenId;

/// Whoever counts as one caller: who has a token, wherever it is used from, and without one the address of the peer. Opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Caller(Who);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    Token(TokenId),
    Address(Option<IpAddr>),
}

/// What one host or site has of IPv6 as a rule. With single addresses it could be as many callers as it likes.
const SITE: u128 = u128::MAX << 64;

impl Caller {
    /// The caller of a request that came in over a connection; all that came in without one are one caller.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        if let Some(token) = request.extensions().get::<TokenId>() {
            return Self(Who::Token(*token));
        }
        Self(Who::Address(request.remote_addr().map(|peer| network(peer.ip()))))
    }

    /// The token that it came with.
    pub(crate) fn token(self) -> Option<TokenId> {
        match self.0 {
            Who::Token(token) => Some(token),
            Who::Address(_) => None,
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & SITE)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_token_is_one_caller_from_everywhere() {
        let tokens = "[[tokens]]\nname = 'a'\nscopes = ['read']\ntoken = 'aaaaaaaaaaaaaaaa'\n\
                      [[tokens]]\nname = 'b'\nscopes = ['read']\ntoken = 'bbbbbbbbbbbbbbbb'\n";
        let tokens = crate::security::Tokens::from_toml(tokens).unwrap();
        let caller = |token: Option<&[u8]>, address: &str| {
            let mut request = tonic::Request::new(());
            let remote_addr = Some(address.parse().unwrap());
            let info = tonic::transport::server::TcpConnectInfo { local_addr: None, remote_addr };
            request.extensions_mut().insert(info);
            if let Some(token) = token {
                request.extensions_mut().insert(tokens.find(token).unwrap().id);
            }
            Caller::of(&request)
        };
        let (a, b): (&[u8], &[u8]) = (b"aaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbb");
        assert_eq!(caller(Some(a), "192.0.2.1:1"), caller(Some(a), "192.0.2.2:1"));
        assert_ne!(caller(Some(a), "192.0.2.1:1"), caller(Some(b), "192.0.2.1:1"));
        assert_ne!(caller(Some(a), "192.0.2.1:1"), caller(None, "192.0.2.1:1"));
    }

    #[test]
    fn a_caller_is_an_address_or_what_a_site_has_of_ipv6() {
        let network = |address: &str| network(address.parse().unwrap());
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
    }
}
