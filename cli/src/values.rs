//! Values on the command line, with a sentence that says what they should look like. Ranges that are the server's to know
//! are the server's to check.

use std::net::SocketAddr;

/// `IP:PORT`.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, for example 127.0.0.1:50051 or [::1]:0".to_owned())
}

/// `IP:PORT`, where the system must not choose the port.
pub(crate) fn known_socket_address(text: &str) -> Result<SocketAddr, String> {
    match socket_address(text)? {
        address if address.port() == 0 => Err("expected IP:PORT with a port that is not 0".to_owned()),
        address => Ok(address),
    }
}

/// Any number, NaN and infinities too.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number, for example 0.5".to_owned())
}

/// A seed.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_or_refused_with_its_form() {
        assert_eq!(socket_address("127.0.0.1:7").unwrap().port(), 7);
        assert!(socket_address("localhost:7").unwrap_err().contains("IP:PORT"));
        assert_eq!(number("-1e3"), Ok(-1000.0));
        assert!(number("nan").unwrap().is_nan());
        assert!(number("abc").unwrap_err().contains("a number"));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["-1", "18446744073709551616", "x", "1.5"] {
            assert!(seed(wrong).unwrap_err().contains("from 0 to 18446744073709551615"));
        }
    }
}
