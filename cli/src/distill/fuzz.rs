//! Hostile files of a text that an ensemble wrote: what is accepted is a text of the vocabulary, and not longer than what was asked
//! for.

use chorus_fuzz::{Encoded, Verdict, assert_bounded, fuzz, mutated, within};
use proptest::prelude::*;

use super::synthetic::decode;
use crate::learn::Tensors;

#[test]
fn a_text_that_is_accepted_is_one_of_the_vocabulary() {
    let valid = Tensors::default().with("tokens", &[4], &[4_u32, 2, 0, 1]).encode().unwrap();
    let words = ["\"F32\"", "\"tokens\"", "[5]", "[2,2]", "[1]", "data_offsets"];
    fuzz("cli: written texts", mutated(Just(valid), &words), |Encoded(bytes)| {
        match within(64 * bytes.len() + 64 * 1024, || decode(&bytes, 5, 4)) {
            Ok(tokens) => {
                assert!(tokens.len() <= 4 && tokens.iter().all(|token| *token < 5));
                Verdict::Accepted
            }
            Err(error) => {
                assert_bounded(&format!("{error:#}"), 4000);
                Verdict::Refused
            }
        }
    });
}
