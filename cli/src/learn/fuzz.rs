//! Hostile files of a cache, and hostile answers of an ensemble: what is accepted has the shape that it is read for, and what is
//! not is refused with a bounded sentence, without memory for what is only claimed.

use std::fs::{self, File};

use chorus_fuzz::{Encoded, Verdict, any_count, any_f32, assert_bounded, fuzz, mutated, within};
use chorus_proto::v1::{DistributionsReply, MemberDistributions};
use proptest::prelude::*;

use super::parts::Part;
use super::tensors::Tensors;
use super::{lists, rows, scores, stream};

const MEMBERS: usize = 2;
const TOKENS: usize = 3;
const VOCABULARY_SIZE: usize = 5;
/// Of what is said of a file, in characters; what is quoted of it stands in it.
const LONGEST_SENTENCE: usize = 4000;
const WORDS: [&str; 8] =
    ["\"F32\"", "\"U32\"", "\"log_probs\"", "[3]", "[3,2]", "[9,9,9,9]", "data_offsets", "\0\0\0<"];

fn part() -> Part {
    Part { index: 0, tokens: 0..TOKENS, begin: 0 }
}

fn refused(error: &anyhow::Error) -> Verdict {
    assert_bounded(&format!("{error:#}"), LONGEST_SENTENCE);
    Verdict::Refused
}

/// Damaged files that are still files of safetensors more often than not.
fn files(valid: &Tensors) -> impl Strategy<Value = Encoded> {
    mutated(Just(valid.encode().unwrap()), &WORDS)
}

fn room(bytes: &[u8]) -> usize {
    64 * bytes.len() + 64 * 1024
}

#[test]
fn kept_scores_are_a_matrix() {
    let log_probs = [-0.5_f64; TOKENS * MEMBERS];
    let valid = Tensors::default().with("tokens", &[TOKENS], &[1_u32; TOKENS]);
    let valid = valid.with("log_probs", &[TOKENS, MEMBERS], &log_probs);
    fuzz("cli: kept scores", files(&valid), |Encoded(bytes)| {
        match within(room(&bytes), || scores::decode(&bytes, &part(), MEMBERS)) {
            Ok(log_probs) => {
                assert_eq!(log_probs.len(), TOKENS * MEMBERS);
                Verdict::Accepted
            }
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn kept_lists_have_a_row_for_each_token() {
    let valid = Tensors::default()
        .with("tokens", &[TOKENS], &[4_u32, 2, 0])
        .with("counts", &[TOKENS], &[1_u32, 0, 2])
        .with("ids", &[3], &[4_u32, 1, 3])
        .with("log_probs", &[3, MEMBERS], &[-0.5_f32; 3 * MEMBERS]);
    fuzz("cli: kept lists", files(&valid), |Encoded(bytes)| {
        match within(room(&bytes), || lists::decode(&bytes, &part(), MEMBERS)) {
            Ok(positions) => {
                assert_eq!(positions.len(), TOKENS);
                for position in positions {
                    assert_eq!(position.ids.len(), position.log_probs.len());
                    assert!(position.log_probs.iter().all(|row| row.len() == MEMBERS));
                }
                Verdict::Accepted
            }
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn kept_rows_lie_where_their_header_says() {
    let shape = [TOKENS, MEMBERS, VOCABULARY_SIZE];
    let valid = Tensors::default().with("tokens", &[TOKENS], &[4_u32, 2, 0]).with(
        "log_probs",
        &shape,
        &[-0.5_f32; TOKENS * MEMBERS * VOCABULARY_SIZE],
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part");
    fuzz("cli: kept rows", files(&valid), |Encoded(bytes)| {
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        match within(room(&bytes), || rows::header(file, shape)) {
            Ok((_, tokens, offset)) => {
                assert!(tokens.len() == TOKENS && tokens.iter().all(|token| *token < VOCABULARY_SIZE as u32));
                let numbers = shape.iter().product::<usize>();
                assert!(offset as usize + numbers * size_of::<f32>() <= bytes.len());
                Verdict::Accepted
            }
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn an_answer_is_cut_into_positions_of_equal_lengths() {
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let values = || prop::collection::vec(any_f32(), 0..12).prop_map(bytes);
    let count = prop_oneof![4 => 0..3_u32, 1 => any_count()];
    let replies = (
        prop::collection::vec(any::<u32>(), 0..4),
        prop::collection::vec(count, 0..4),
        prop::collection::vec(any::<u8>(), 0..40),
        values(),
        prop::option::of(values()),
    );
    let reply = replies.prop_map(|(tokens, counts, ids, log_probs, member)| DistributionsReply {
        tokens,
        counts,
        ids,
        log_probs,
        members: member
            .into_iter()
            .map(|log_probs| MemberDistributions { name: "alto".to_owned(), log_probs })
            .collect(),
        ..DistributionsReply::default()
    });
    fuzz("cli: distributions of an ensemble", reply, |reply| {
        match within(64 * 1024, || {
            let positions = stream::positions(&reply, VOCABULARY_SIZE)?;
            anyhow::Ok(
                positions.iter().map(|found| (found.ids.len(), found.log_probs.len())).collect::<Vec<_>>(),
            )
        }) {
            Ok(lengths) => {
                assert_eq!(lengths.len(), reply.tokens.len());
                for (ids, log_probs) in lengths {
                    let expected = if reply.counts.is_empty() { VOCABULARY_SIZE } else { ids };
                    assert_eq!(log_probs, expected);
                }
                Verdict::of(!reply.tokens.is_empty())
            }
            Err(error) => refused(&error),
        }
    });
}
