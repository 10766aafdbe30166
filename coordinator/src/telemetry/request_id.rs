//! [`RequestId`]: what a request is called in logs, traces and its answer, so that it can be followed. Knows nothing about what
//! it asks.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Where a caller may name its request, and where its answer says the name.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Of a caller's own name, in bytes.
const LONGEST: usize = 64;

/// A short word of letters, digits and `-_.:`.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's name for its request where that is one that may stand in a log, else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(&HEADER) {
            Some(given) if is_sane(given.as_bytes()) => Self(given.clone()),
            _ => Self::random(),
        }
    }

    fn random() -> Self {
        let text = format!("{:016x}", rand::random::<u64>());
        // Hexadecimal digits are a header's value.
        Self(HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0")))
    }

    /// Says it to the caller.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(HEADER, self.0);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}

fn is_sane(name: &[u8]) -> bool {
    let is_sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=LONGEST).contains(&name.len()) && name.iter().all(is_sane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(name).unwrap());
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn a_name_that_may_stand_in_a_log_is_kept_and_others_are_not() {
        assert_eq!(named(b"0af7651916cd43dd-8448.eb:2_1"), "0af7651916cd43dd-8448.eb:2_1");
        for name in [&b""[..], &[b'a'; 65], b"a b", b"a\"b", b"caf\xe9", b"a\tb", b"{}"] {
            let other = named(name);
            assert_eq!(other.len(), 16, "{name:?} became {other}");
        }
        assert_ne!(
            RequestId::of(&HeaderMap::new()).to_string(),
            RequestId::of(&HeaderMap::new()).to_string()
        );
    }

    #[test]
    fn the_answer_says_it() {
        let mut headers = HeaderMap::new();
        let id = RequestId::of(&headers);
        let said = id.to_string();
        id.tell(&mut headers);
        assert_eq!(headers["x-request-id"], said.as_str());
    }
}
