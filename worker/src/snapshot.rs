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
    let computed = crc32fast::hash(&snapshot.state);
    if computed != snapshot.checksum {
        return Err(SnapshotError::Damaged { found: snapshot.checksum, computed });
    }
    Ok(snapshot.state)
}

const LONGEST_FINGERPRINT: usize = 80;

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
