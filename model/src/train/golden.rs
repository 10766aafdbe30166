//! Whole steps of training (loss, gradients, clipping, learning rate, update, carried state) against PyTorch's. The
//! numbers and the recipe that made them are in `golden/`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::tests::{advance, bits, options};
use super::trainer::Trainer;
use super::*;
use crate::line::Line;

const STEPS: usize = 12;
/// After so many steps; an update differs by a few units in the last place of its gradients.
const TOLERANCE: f32 = 5e-6;

/// A case's tensors by name.
fn case(name: &str) -> BTreeMap<String, Tensor> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/train/golden").join(name);
    candle_core::safetensors::load(file.with_extension("safetensors"), &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn integers(tensor: &Tensor) -> Vec<u32> {
    tensor.to_dtype(DType::U32).unwrap().to_vec1().unwrap()
}

/// What the case is trained on: a text, or lines where it says how long they are.
fn data(golden: &BTreeMap<String, Tensor>) -> TrainingData {
    let tokens = integers(&golden["tokens"]);
    let Some(lengths) = golden.get("lengths") else {
        return Texts { validation: tokens.clone(), training: tokens, vocab_size: 7 }.into();
    };
    let mut rest = tokens.as_slice();
    let lines: Vec<Line> = integers(lengths)
        .into_iter()
        .zip(integers(&golden["contexts"]))
        .map(|(length, context)| {
            let (line, behind) = rest.split_at(length as usize);
            rest = behind;
            Line { tokens: line.to_vec(), context: context as usize }
        })
        .collect();
    LineTexts { validation: lines.clone(), training: lines, vocab_size: 7 }.into()
}

/// A trainer that begins with the case's weights.
fn trainer(options: TrainingOptions, golden: &BTreeMap<String, Tensor>) -> Trainer {
    let mut trainer = Trainer::new(options, data(golden)).unwrap();
    let mut tensors = trainer.tensors().unwrap();
    for (name, (shape, own)) in &mut tensors {
        if let Some(name) = name.strip_prefix("weights.") {
            let golden = &golden[&format!("before.{name}")];
            assert_eq!(shape, golden.dims(), "{name}");
            *own = values(golden);
        }
    }
    let header = trainer.header(0);
    trainer.restore(header, tensors, |reason| panic!("{reason}")).unwrap();
    trainer
}

fn assert_trained_as_by_pytorch(name: &str, options: TrainingOptions) {
    let golden = case(name);
    let mut trainer = trainer(options, &golden);
    (0..STEPS).for_each(|_| advance(&mut trainer));
    let trained = trainer.tensors().unwrap();
    let mut moved = 0.0_f32;
    for (name, (_, ours)) in &trained {
        let Some(name) = name.strip_prefix("weights.") else { continue };
        let (before, after) =
            (values(&golden[&format!("before.{name}")]), values(&golden[&format!("after.{name}")]));
        for (ours, (before, after)) in ours.iter().zip(before.iter().zip(&after)) {
            assert!((ours - after).abs() <= TOLERANCE, "{name}: {ours} and {after}");
            moved = moved.max((before - after).abs());
        }
    }
    assert!(moved > 0.01, "the weights moved by {moved} at most");
}

fn shape(embedding_size: usize, hidden_size: usize, layers: usize, tied: bool) -> TrainingOptions {
    TrainingOptions {
        embedding_size,
        hidden_size,
        layers,
        tied,
        dropout: 0.0,
        batch: 4,
        bptt: 8,
        epochs: 3,
        ..options()
    }
}

#[test]
fn adam_with_a_cosine_on_two_tied_layers() {
    let options = TrainingOptions {
        optimizer: OptimizerKind::Adam,
        learning_rate: 0.02,
        decay: Decay::Cosine,
        clip: 1.0,
        ..shape(5, 5, 2, true)
    };
    assert_trained_as_by_pytorch("adam", options);
}

#[test]
fn sgd_with_clipped_gradients() {
    let options = TrainingOptions {
        optimizer: OptimizerKind::Sgd,
        learning_rate: 2.0,
        decay: Decay::None,
        clip: 0.25,
        ..shape(5, 6, 1, false)
    };
    assert_trained_as_by_pytorch("sgd", options);
}

#[test]
fn adam_on_whole_lines_whose_contexts_count_less() {
    let options = TrainingOptions {
        optimizer: OptimizerKind::Adam,
        learning_rate: 0.02,
        decay: Decay::None,
        clip: 0.5,
        // All lines are one batch, so the order of an epoch makes no difference.
        batch: 5,
        epochs: STEPS,
        lines: Some(LineOptions { end: 6, loss_after: None, context_weight: 0.3 }),
        ..shape(5, 6, 2, false)
    };
    assert_trained_as_by_pytorch("lines", options);
}

#[test]
fn dropout_and_clipping_are_felt_by_the_very_first_step() {
    let golden = case("sgd");
    let after_one = |options| {
        let mut trainer = trainer(options, &golden);
        advance(&mut trainer);
        trainer.tensors().unwrap()
    };
    let sgd = TrainingOptions { optimizer: OptimizerKind::Sgd, learning_rate: 1.0, ..shape(5, 6, 1, false) };
    let plain = after_one(sgd.clone());
    assert_ne!(bits(&plain), bits(&after_one(TrainingOptions { dropout: 0.5, ..sgd.clone() })));
    assert_ne!(bits(&plain), bits(&after_one(TrainingOptions { clip: 0.01, ..sgd })));
}
