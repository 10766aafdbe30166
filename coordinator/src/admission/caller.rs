//! [`Caller`]: between whom places are shared.
//!
//! Knows nothing about how they are shared.

use std::net::{IpAddr, Ipv6Addr};

/// Whoever counts as one caller: the address of the peer, until something says more of it. Opaque, so that a token can take its
/// place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Caller(Option<IpAddr>);

/// What one host or site has of IPv6 as a rule. With single addresses it could be as many callers as it likes.
const SITE: u128 = u128::MAX << 64;

impl Caller {
    /// The caller of a request that came in over a connection; all that came in without one are one caller.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        Self(request.remote_addr().map(|peer| network(peer.ip())))
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
    fn a_caller_is_an_address_or_what_a_site_has_of_ipv6() {
        let network = |address: &str| network(address.parse().unwrap());
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
    }
}
