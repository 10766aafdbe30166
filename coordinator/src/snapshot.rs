//! [`Snapshot`]: where a session stands at a member, as a worker made it. Knows nothing about what is in it.

use std::sync::Arc;

use bytes::Bytes;
use chorus_proto::v1;

/// Of a snapshot's state. An LSTM with two layers of 1,500 units has 24 KB; what is larger than this is not worth keeping for
/// every session.
const MOST_BYTES: usize = 1 << 20;
/// Of the fingerprint that comes with it; a SHA-256 in words has 71.
const MOST_FINGERPRINT_BYTES: usize = 1 << 10;

/// A session's state after so many tokens, whole. Clones share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    sealed: Arc<v1::Snapshot>,
    position: usize,
}

impl Snapshot {
    /// A snapshot that came over the wire, if it is whole and not too large to be kept.
    pub fn read(sealed: v1::Snapshot) -> Option<Self> {
        let position = usize::try_from(sealed.position).ok()?;
        let is_huge =
            sealed.state.len() > MOST_BYTES || sealed.model_fingerprint.len() > MOST_FINGERPRINT_BYTES;
        if is_huge || crc32fast::hash(&sealed.state) != sealed.checksum {
            return None;
        }
        // As it came it would hold on to the whole frame that it was in.
        let state = Bytes::copy_from_slice(&sealed.state);
        Some(Self { sealed: Arc::new(v1::Snapshot { state, ..sealed }), position })
    }

    /// Tokens of the session that are in it.
    pub fn position(&self) -> usize {
        self.position
    }

    /// As it travels.
    pub fn sealed(&self) -> &v1::Snapshot {
        &self.sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(state: Vec<u8>) -> v1::Snapshot {
        let checksum = crc32fast::hash(&state);
        v1::Snapshot { position: 5, model_fingerprint: "model".to_owned(), state: state.into(), checksum }
    }

    #[test]
    fn what_is_whole_is_kept_as_it_came() {
        let snapshot = Snapshot::read(sealed(vec![1, 2, 3])).unwrap();
        assert_eq!((snapshot.position(), snapshot.sealed()), (5, &sealed(vec![1, 2, 3])));
    }

    #[test]
    fn what_is_damaged_or_huge_is_not() {
        let whole = sealed(vec![1, 2, 3]);
        assert_eq!(Snapshot::read(v1::Snapshot { checksum: !whole.checksum, ..whole }), None);
        assert!(Snapshot::read(sealed(vec![0; MOST_BYTES])).is_some());
        assert_eq!(Snapshot::read(sealed(vec![0; MOST_BYTES + 1])), None);
        let named = |bytes: usize| v1::Snapshot { model_fingerprint: "m".repeat(bytes), ..sealed(vec![1]) };
        assert!(Snapshot::read(named(MOST_FINGERPRINT_BYTES)).is_some());
        assert_eq!(Snapshot::read(named(MOST_FINGERPRINT_BYTES + 1)), None);
    }
}
