//! Whole runs on lines: what a line's beginning and its context do, determinism, resumption, refusals.

use std::fs;
use std::ops::ControlFlow;

use super::random::{Purpose, generator, uniform};
use super::tests::{self, advance, bits, options, settings, timeless};
use super::trainer::Trainer;
use super::*;
use crate::config::Start;
use crate::line::Line;
use crate::{LanguageModel, ModelParts, Precision, evaluate_lines};

const END: u32 = 4;

/// Lines of a first token, 1 or 2 by the toss of a coin, and that token again after up to five threes and a 0.
fn lines(count: usize, seed: u64) -> Vec<Line> {
    let mut generator = generator(seed, Purpose::Order, 0);
    let mut draw = |bound: f32| (uniform(&mut generator) * bound) as usize;
    (0..count)
        .map(|_| {
            let first = 1 + draw(2.0) as u32;
            let threes = draw(6.0);
            let middle = std::iter::repeat_n(3, threes);
            let tokens = std::iter::once(first).chain(middle).chain([0, first]).collect();
            Line { tokens, context: threes + 2 }
        })
        .collect()
}

fn texts() -> LineTexts {
    LineTexts { training: lines(70, 1), validation: lines(30, 2), vocab_size: 5 }
}

fn line_options() -> TrainingOptions {
    let lines = Some(LineOptions { end: END, loss_after: Some(" ".to_owned()), context_weight: 0.2 });
    TrainingOptions { lines, ..options() }
}

#[test]
fn the_state_is_fresh_in_every_line_and_the_first_token_is_remembered_to_the_end() {
    let texts = LineTexts { training: lines(2000, 1), validation: lines(200, 2), vocab_size: 5 };
    let options = TrainingOptions { dropout: 0.0, epochs: 12, learning_rate: 0.02, ..line_options() };
    let mut trainer = Trainer::new(options, texts).unwrap();
    let mut nats = f64::INFINITY;
    while !trainer.is_over() {
        while !trainer.epoch_is_done() {
            trainer.step().unwrap();
        }
        nats = trainer.end_epoch().unwrap().nats;
    }
    // After its context a line has nothing that is open: with a coin tossed anew it would be half of ln 2.
    assert!(nats < 0.02, "{nats}");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_lines_come_in_another_order_with_another() {
    let after = |options: TrainingOptions| {
        let mut trainer = Trainer::new(options, texts()).unwrap();
        (0..40).for_each(|_| advance(&mut trainer));
        trainer.tensors().unwrap()
    };
    let same = after(line_options());
    assert_eq!(bits(&same), bits(&after(line_options())));
    assert_ne!(bits(&same), bits(&after(TrainingOptions { seed: 2, ..line_options() })));
}

#[test]
fn a_run_on_lines_that_is_stopped_and_resumed_equals_one_that_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
    let run = |settings: &RunSettings, steps: usize| {
        let mut left = steps;
        let outcome = train(line_options(), texts(), settings, &mut |event| {
            left -= usize::from(matches!(event, Event::Step { .. }));
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        outcome.unwrap()
    };
    let outcome = run(&settings(&whole), usize::MAX);
    let mut resumed = settings(&parts);
    for steps in [7, 15, 4] {
        assert_eq!(run(&resumed, steps), Outcome::Stopped);
        resumed.resume = true;
    }
    assert_eq!(run(&resumed, usize::MAX), outcome);
    let model = |directory: &std::path::Path| fs::read(directory.join("model.safetensors")).unwrap();
    assert!(model(&whole) == model(&parts));
    assert_eq!(timeless(&whole), timeless(&parts));
    let config: crate::Config =
        serde_json::from_slice(&fs::read(whole.join("config.json")).unwrap()).unwrap();
    assert_eq!(config.end, Some(END));
}

#[test]
fn the_validation_is_what_evaluation_says_of_the_same_lines() {
    let mut trainer = Trainer::new(line_options(), texts()).unwrap();
    while !trainer.epoch_is_done() {
        trainer.step().unwrap();
    }
    let validated = trainer.end_epoch().unwrap().nats;
    let values = trainer.parameters().named();
    let parts = ModelParts::new(
        trainer.config().clone(),
        chorus_text::Vocabulary::train_characters("abcde").unwrap(),
        values.map(|(name, value)| (name.to_owned(), value.as_tensor().clone())).collect(),
    );
    let model = LanguageModel::from_parts(parts, &candle_core::Device::Cpu, Precision::F32).unwrap();
    let evaluation = evaluate_lines(&model, &texts().validation, END, |_| {}).unwrap();
    // One token after the context, and the end.
    assert_eq!(evaluation.tokens, 60);
    assert!((evaluation.nats_per_token().unwrap() - validated).abs() < 1e-5);
}

#[test]
fn a_context_that_counts_nothing_is_not_learned() {
    let after_one = |context_weight| {
        let lines = line_options().lines.map(|lines| LineOptions { context_weight, ..lines });
        let optimizer = OptimizerKind::Sgd;
        let options = TrainingOptions { lines, optimizer, dropout: 0.0, ..line_options() };
        let mut trainer = Trainer::new(options, texts()).unwrap();
        let before = trainer.tensors().unwrap()["weights.linear.bias"].1.clone();
        trainer.step().unwrap();
        (before, trainer.tensors().unwrap()["weights.linear.bias"].1.clone())
    };
    // 3 stands in contexts only: without a loss there, its bias only falls.
    let (before, after) = after_one(0.0);
    assert!(after[3] < before[3]);
    let (before, after) = after_one(1.0);
    assert!(after[3] > before[3]);
}

#[test]
fn options_and_lines_that_do_not_fit_are_refused() {
    let refusal =
        |options: TrainingOptions, data: TrainingData| Trainer::new(options, data).err().unwrap().to_string();
    let fresh = TrainingOptions { start: Start::ZeroState, ..line_options() };
    assert!(refusal(fresh, texts().into()).starts_with("lines need a start token"));
    assert!(refusal(options(), texts().into()).contains("don't agree"));
    let text = Texts { vocab_size: 5, ..tests::texts() };
    assert!(refusal(line_options(), text.into()).contains("don't agree"));
    let nothing = LineTexts { validation: Vec::new(), ..texts() };
    assert_eq!(refusal(line_options(), nothing.into()), "the validation text has no line");
    let outside = LineTexts { training: vec![Line { tokens: vec![1], context: 2 }], ..texts() };
    assert!(refusal(line_options(), outside.into()).contains("has 1 tokens, but 2 of them"));
    let passages = TrainingOptions { order: DataOrder::Passages, ..line_options() };
    assert!(refusal(passages, texts().into()).contains("no passages"));
    let end = line_options().lines.map(|lines| LineOptions { end: 5, ..lines });
    assert!(Trainer::new(TrainingOptions { lines: end, ..line_options() }, texts()).is_err());
}
