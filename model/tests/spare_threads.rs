//! Whoever takes a part of a product, the logits are the same to the bit.

#![allow(clippy::unwrap_used)]

mod common;

use std::num::NonZeroUsize;

use chorus_model::{Config, LanguageModel, Row, SpareThreads, Want, without_spare_threads};

/// The logits of sequences of several lengths, of which all products but the smallest are cut into shares.
fn logits(model: &LanguageModel) -> Vec<u32> {
    let texts: Vec<Vec<u32>> =
        (0..48).map(|row| (0..1 + row % 3).map(|token| row + token).collect()).collect();
    let mut states = vec![model.fresh_state().unwrap(); texts.len()];
    let rows = states.iter_mut().zip(&texts);
    let mut rows: Vec<Row<'_>> =
        rows.map(|(state, tokens)| Row { state, tokens, want: Want::Each }).collect();
    let mut bits = Vec::new();
    model
        .predict(&mut rows, &mut |prediction| {
            bits.extend(prediction.logits.iter().map(|logit| logit.to_bits()));
        })
        .unwrap();
    bits
}

#[test]
fn a_forward_gives_the_same_bits_with_help_and_without() {
    chorus_model::use_threads(NonZeroUsize::MIN).unwrap();
    let config = Config {
        hidden_size: 192,
        embedding_size: Some(192),
        tied: true,
        vocab_size: 800,
        ..common::config()
    };
    for (form, model) in common::in_every_form(&config) {
        let expected = logits(&model);
        let (model, form) = (&model, &form);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _spare = SpareThreads::of_this_thread(NonZeroUsize::new(3).unwrap()).unwrap();
                for time in 0..20 {
                    assert!(logits(model) == expected, "{form}, time {time}");
                }
                assert!(without_spare_threads(|| logits(model)) == expected, "{form}");
            });
        });
    }
}
