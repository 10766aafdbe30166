//! Snapshots as they travel: a session's state, sealed with its position, the model that it belongs to, and a checksum.
//!
//! Knows nothing about what is in a state.

use bytes::Bytes;
use chorus_proto::v1;

/// Why a session can't go on from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Another model's.
    #[error("open.snapshot.model_fingerprint is {found:?}, allowed is {own:?}, this worker's model")]
    OtherModel {
        /// As the snapshot says.
        found: String,
        /// This worker's.
        own: String,
    },
    /// Of a session that nobody has had: a count of tokens that goes on from there would overflow.
    #[error("open.snapshot.position is {found}, allowed is 0 to {MOST_TOKENS}")]
    Position {
        /// As the snapshot says.
        found: u64,
    },
    /// It was damaged on its way.
    #[error("open.snapshot.checksum is {found:#010x}, but that of its state is {computed:#010x}")]
    Damaged {
        /// As the snapshot says.
        found: u32,
        /// Of the bytes that came.
        computed: u32,
    },
}

/// Makes a snapshot of a state at a position.
pub(crate) fn seal(model_fingerprint: &str, position: u64, state: Bytes) -> v1::Snapshot {
    let checksum = crc32fast::hash(&state);
    v1::Snapshot { position, model_fingerprint: model_fingerprint.to_owned(), state, checksum }
}

/// The state in a snapshot that is whole and of this model.
pub(crate) fn open(snapshot: v1::Snapshot, model_fingerprint: &str) -> Result<Bytes, SnapshotError> {
    if snapshot.model_fingerprint != model_fingerprint {
        let own = model_fingerprint.to_owned();
        // What came is repeated only as far as a fingerprint is long.
        let found = chorus_proto::shortened(&snapshot.model_fingerprint, LONGEST_FINGERPRINT);
        return Err(SnapshotError::OtherModel { found, own });
    }
    // No part of the state, so the checksum says nothing about it.
    if snapshot.position > MOST_TOKENS {
        return Err(SnapshotError::Position { found: snapshot.position });
    }
    let computed = crc32fast::hash(&snapshot.state);
    if computed != snapshot.checksum {
        return Err(SnapshotError::Damaged { found: snapshot.checksum, computed });
    }
    Ok(snapshot.state)
}

const LONGEST_FINGERPRINT: usize = 80;
/// Of a session: at a million tokens a second some nine years.
const MOST_TOKENS: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_by_the_same_model_only() {
        let state = Bytes::from_static(b"123456789");
        let snapshot = seal("ours", 7, state.clone());
        // The check value of CRC-32/ISO-HDLC, as its catalogue has it.
        assert_eq!((snapshot.position, snapshot.checksum), (7, 0xcbf4_3926));
        assert_eq!(open(snapshot.clone(), "ours"), Ok(state));
        let error = open(snapshot, "theirs").unwrap_err();
        assert_eq!(
            error.to_string(),
            "open.snapshot.model_fingerprint is \"ours\", allowed is \"theirs\", this worker's model"
        );
    }

    #[test]
    fn a_position_from_which_counting_would_overflow_is_refused() {
        let state = Bytes::from_static(b"123456789");
        assert!(open(seal("ours", MOST_TOKENS, state.clone()), "ours").is_ok());
        for position in [MOST_TOKENS + 1, u64::MAX] {
            let error = open(seal("ours", position, state.clone()), "ours").unwrap_err();
            assert_eq!(error, SnapshotError::Position { found: position });
        }
    }

    #[test]
    fn a_bit_that_fell_over_is_found() {
        let snapshot = seal("ours", 7, Bytes::from_static(b"123456789"));
        for bit in 0..72 {
            let mut state = snapshot.state.to_vec();
            state[bit / 8] ^= 1 << (bit % 8);
            let damaged = v1::Snapshot { state: state.into(), ..snapshot.clone() };
            assert!(matches!(open(damaged, "ours"), Err(SnapshotError::Damaged { .. })));
        }
    }
}
