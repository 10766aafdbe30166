//! Hostile manifests and pieces: what is accepted are distributions over tokens of the vocabulary, and the same when they are
//! written down and read again.

use std::path::Path;

use chorus_fuzz::{Encoded, Verdict, fuzz, mutated, within};
use proptest::prelude::*;

use super::manifest::Manifest;
use super::tests::{TEXT, header, targets};
use super::*;
use crate::fuzz::check_sentence;

fn manifest(form: TargetForm) -> Manifest {
    let whole = TeacherHeader { piece_tokens: TEXT.len(), ..header(form) };
    Manifest::new(whole, &TEXT).unwrap()
}

/// Probabilities of known tokens, none of them twice, that sum to no more than there is.
fn check_row(row: TargetRow<'_>) {
    let (probabilities, whole): (Vec<f64>, bool) = match row {
        TargetRow::List { ids, probabilities } => {
            let mut sorted = ids.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() == ids.len() && ids.len() == probabilities.len() && ids.len() <= 2);
            assert!(ids.iter().all(|&id| id < 5));
            (probabilities.iter().copied().map(f64::from).collect(), false)
        }
        TargetRow::Whole(probabilities) => {
            assert_eq!(probabilities.len(), 5);
            (probabilities.iter().map(|probability| probability.to_f64()).collect(), true)
        }
    };
    let mass: f64 = probabilities.iter().sum();
    assert!(probabilities.iter().all(|&probability| (0.0..=1.001).contains(&probability)));
    assert!(mass <= 1.0011 && (!whole || mass >= 0.9989), "{mass}");
}

#[test]
fn a_piece_that_is_accepted_holds_distributions() {
    let form = |dense| if dense { TargetForm::Dense } else { TargetForm::TopK(2) };
    let words =
        ["\"F16\"", "\"U32\"", "\"piece\":\"1\"", "lengths", "[7]", "[7,5]", "data_offsets", "\0\0\0<"];
    let cases = |dense: bool| {
        let valid = piece::encode(&manifest(form(dense)), 0, &TEXT, &targets(form(dense), 0..7)).unwrap();
        (Just(dense), prop_oneof![7 => Just(0), 1 => 0..3_usize], mutated(Just(valid), &words))
    };
    fuzz(
        "model: a teacher's pieces",
        prop_oneof![cases(false), cases(true)],
        |(dense, index, Encoded(bytes))| {
            let manifest = manifest(form(dense));
            match within(64 * bytes.len() + 64 * 1024, || piece::decode(&manifest, index, &bytes)) {
                Ok((tokens, targets)) => {
                    assert_eq!(tokens.len(), targets.len());
                    assert!(tokens.iter().all(|&token| token < 5));
                    (0..targets.len()).for_each(|position| check_row(targets.row(position).unwrap()));
                    let again = piece::encode(&manifest, index, &tokens, &targets).unwrap();
                    let again = piece::decode(&manifest, index, &again).unwrap();
                    assert_eq!(again, (tokens, targets));
                    Verdict::Accepted
                }
                Err(error) => {
                    check_sentence(&error);
                    Verdict::Refused
                }
            }
        },
    );
}

#[test]
fn a_manifest_that_is_accepted_is_one_when_it_is_written_down() {
    let path = Path::new("manifest.json");
    let valid = [TargetForm::TopK(2), TargetForm::Dense];
    let valid = valid.map(|form| manifest(form).to_json().unwrap().into_bytes());
    let words = ["null", "\"dense\"", "{\"top_k\":3}", "\"\"", "{}", "1e300", "65536"];
    fuzz(
        "model: a teacher's manifests",
        mutated(prop::sample::select(valid.to_vec()), &words),
        |Encoded(bytes)| match within(64 * bytes.len() + 16 * 1024, || Manifest::from_json(path, &bytes)) {
            Ok(manifest) => {
                assert!(manifest.no_targets().unwrap().is_empty());
                let pieces = manifest.pieces();
                assert!((1..=1 << 20).contains(&pieces));
                let last = manifest.positions(pieces - 1).unwrap();
                assert!(last.end as u64 == manifest.tokens && manifest.positions(pieces).is_none());
                assert!(piece::most_bytes(&manifest.header) > 0);
                let again = Manifest::from_json(path, manifest.to_json().unwrap().as_bytes()).unwrap();
                assert!(again.difference(&manifest).is_none());
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        },
    );
}
