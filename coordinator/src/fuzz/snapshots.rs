//! Hostile snapshots, as they are kept of every session.

use bytes::Bytes;
use chorus_fuzz::{Encoded, Verdict, any_number, fuzz, mutated, within};
use chorus_proto::v1;
use proptest::prelude::*;
use prost::Message as _;

use crate::snapshot::Snapshot;

#[test]
fn a_snapshot_that_is_kept_is_whole_and_small() {
    let words = prop_oneof!["[a-z]{0,9}", "[a-z]{0,2000}"];
    let state = prop::collection::vec(any::<u8>(), 0..40);
    let sealed = (any_number(), words, state).prop_map(|(position, model_fingerprint, state)| {
        let checksum = crc32fast::hash(&state);
        v1::Snapshot { position, model_fingerprint, state: state.into(), checksum }.encode_to_vec()
    });
    fuzz("coordinator: snapshots", mutated(sealed.boxed(), &[]), |Encoded(bytes)| {
        let room = 16 * bytes.len() + 4096;
        let Ok(sealed) = v1::Snapshot::decode(Bytes::from(bytes)) else {
            return Verdict::Refused;
        };
        let Some(snapshot) = within(room, || Snapshot::read(sealed.clone())) else {
            return Verdict::Refused;
        };
        assert_eq!((snapshot.position() as u64, snapshot.sealed()), (sealed.position, &sealed));
        assert_eq!(crc32fast::hash(&sealed.state), sealed.checksum);
        // One is kept for every session and member.
        assert!(sealed.model_fingerprint.len() <= 1024, "{} bytes", sealed.model_fingerprint.len());
        Verdict::Accepted
    });
}
