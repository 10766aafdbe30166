//! Hostile checkpoints of a training run: a run goes on from what is accepted, and what is not is refused.

use std::path::Path;

use chorus_fuzz::{Encoded, Verdict, fuzz, mutated, within};
use proptest::prelude::*;

use super::checkpoint::{Progress, encode, parse};
use super::tests::{markov, options};
use super::trainer::Trainer;
use super::{Texts, TrainError};
use crate::fuzz::check_sentence;

fn trainer() -> Trainer {
    let texts = Texts { training: markov(200, 1), validation: markov(60, 2), vocab_size: 3 };
    Trainer::new(options(), texts).unwrap()
}

#[test]
fn a_run_goes_on_from_every_checkpoint_that_is_accepted() {
    let path = Path::new("checkpoint");
    let mut begun = trainer();
    let mut encoded = Vec::new();
    while !begun.epoch_is_done() {
        begun.step().unwrap();
        encoded.push(encode(path, &begun.header(0), &begun.tensors().unwrap()).unwrap());
    }
    begun.end_epoch().unwrap();
    encoded.push(encode(path, &begun.header(0), &begun.tensors().unwrap()).unwrap());
    let words = ["\\\"step\\\":", "\\\"block\\\":", "null", "9218868437227405312", "\"I32\"", "adam.first."];
    fuzz("model: checkpoints", mutated(prop::sample::select(encoded), &words), |Encoded(bytes)| {
        let unusable = |reason| TrainError::Checkpoint { path: path.to_owned(), reason };
        let parsed = within(64 * bytes.len() + 64 * 1024, || parse(&bytes)).map_err(unusable);
        let mut trainer = trainer();
        let restored = parsed.and_then(|(header, tensors)| trainer.restore(header, tensors, unusable));
        if let Err(error) = restored {
            check_sentence(&error);
            return Verdict::Refused;
        }
        // As a run does.
        if !trainer.is_over() {
            let went_on =
                if trainer.epoch_is_done() { trainer.end_epoch().map(|_| ()) } else { trainer.step() };
            if let Err(error) = went_on {
                check_sentence(&error);
            }
            assert!(!trainer.take_mean_nats().0.is_infinite());
        }
        Verdict::Accepted
    });
}

#[test]
fn numbers_that_belong_to_no_run_are_refused() {
    let mut begun = trainer();
    begun.step().unwrap();
    let (sound, tensors) = (begun.header(0), begun.tensors().unwrap());
    let wrong: [fn(&mut Progress); 9] = [
        // From here counting would overflow.
        |progress| progress.step = u64::MAX,
        |progress| progress.tokens = u64::MAX,
        |progress| progress.nats_tokens = u64::MAX,
        |progress| progress.epoch = usize::MAX,
        |progress| progress.block = usize::MAX,
        |progress| progress.plateaus = usize::MAX,
        |progress| progress.epochs_since_best = usize::MAX,
        |progress| progress.nats = f64::NAN,
        |progress| progress.soft_nats = f64::INFINITY,
    ];
    let restore = |header| {
        let unusable = |reason| TrainError::Checkpoint { path: "checkpoint".into(), reason };
        trainer().restore(header, tensors.clone(), unusable)
    };
    restore(sound.clone()).unwrap();
    for change in wrong {
        let mut header = sound.clone();
        change(&mut header.progress);
        let error = restore(header.clone()).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{:?}: {error}", header.progress);
    }
}
