//! Hostile bytes against the rows of logits and the sentences of statuses.

use bytes::{Bytes, BytesMut};
use chorus_fuzz::{Encoded, Verdict, any_f32, any_f64, assert_one_line, fuzz, mutated, within};
use proptest::prelude::*;
use prost::Message as _;

use crate::v1::{Answer, Failure, Logits, Norms, RowFormat, answer};
use crate::{logits_to_values, native_rows, put_values, shortened, value_bytes};

const FORMATS: [RowFormat; 3] = [RowFormat::F32, RowFormat::F16, RowFormat::Bf16];

/// Format, rows, and tokens of the vocabulary.
type Shape = (RowFormat, usize, usize);

fn encoded_logits((format, rows, size): Shape) -> impl Strategy<Value = Vec<u8>> + Clone {
    let values = prop::collection::vec(any_f32(), rows * size);
    let norms = prop::collection::vec((any_f32(), any_f64()), rows);
    (values, norms).prop_map(move |(values, norms)| {
        let mut bytes = Vec::new();
        put_values(&mut bytes, values.into_iter(), format);
        let (largest, log_sum) = norms.into_iter().unzip();
        Logits { values: bytes.into(), norms: Some(Norms { largest, log_sum }) }.encode_to_vec()
    })
}

#[test]
fn rows_are_what_the_bytes_say_or_refused_in_one_line() {
    let shape = (prop::sample::select(FORMATS.to_vec()), 0..4_usize, 1..8_usize);
    let cases = shape.prop_flat_map(|shape| (mutated(encoded_logits(shape), &[]), Just(shape)));
    fuzz("rows of logits", cases, |(Encoded(bytes), (format, rows, vocabulary_size))| {
        let room = 8 * bytes.len() + 1024;
        let Ok(logits) = within(room, || Logits::decode(Bytes::from(bytes))) else {
            return Verdict::Refused;
        };
        let expected = rows * vocabulary_size * value_bytes(format);
        let norms = logits.norms.as_ref().map_or(Some(0), Norms::count);
        let fits = logits.values.len() == expected && norms == Some(rows);
        let values = within(room, || logits_to_values(&logits, format, rows, vocabulary_size));
        let native =
            within(room, || native_rows(&logits, format, rows, vocabulary_size, &mut BytesMut::new()));
        assert_eq!((values.is_ok(), native.is_ok()), (fits, fits));
        match (values, native) {
            (Ok(values), Ok(native)) => {
                assert_eq!(values.len(), rows * vocabulary_size);
                // NaN may change its payload on the way to f32; numbers may not.
                let read = native.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes));
                let same = |(one, other): (&f32, f32)| {
                    one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan())
                };
                assert!(values.iter().zip(read).all(same));
            }
            (Err(error), Err(_)) => assert_one_line(&error.to_string(), 200),
            _ => unreachable!("both are the same"),
        }
        Verdict::of(fits && rows > 0)
    });
}

#[test]
fn what_a_worker_says_of_a_failure_becomes_one_line() {
    let failure = (any::<i32>(), any::<String>()).prop_map(|(code, message)| {
        let failure = answer::Answer::Failure(Failure { code, message });
        Answer { session: 1, step: 1, answer: Some(failure), snapshot: None }.encode_to_vec()
    });
    fuzz("sentences of failures", mutated(failure, &["\n", "\u{1b}[2J", "\0"]), |Encoded(bytes)| {
        let Ok(Answer { answer: Some(answer::Answer::Failure(failure)), .. }) =
            Answer::decode(bytes.as_slice())
        else {
            return Verdict::Refused;
        };
        let sentence = shortened(&failure.message, 20);
        if !failure.message.is_empty() {
            assert_one_line(&sentence, 27);
        }
        Verdict::Accepted
    });
}
