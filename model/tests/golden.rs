//! Parity with PyTorch: the numbers and the recipe that made them are in `golden/`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use candle_core::{DType, Device};
use chorus_model::{
    Config, Evaluation, LanguageModel, ModelParts, Precision, Row, Tensors, Want, evaluate, evaluate_in_lanes,
};

use common::difference;

const TOLERANCE: f32 = 1e-5;
const LANES: NonZeroUsize = NonZeroUsize::new(6).unwrap();

struct Golden {
    model: LanguageModel,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// The cross entropy of the whole text, and of its lanes.
    nats: Vec<f64>,
}

fn path(below_the_crate: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below_the_crate)
}

fn load(case: &str) -> Tensors {
    let file = path(&format!("tests/golden/{case}.safetensors"));
    candle_core::safetensors::load(file, &Device::Cpu).unwrap().into_iter().collect()
}

fn golden(case: &str) -> Golden {
    let config = std::fs::read(path(&format!("tests/golden/{case}.json"))).unwrap();
    let config: Config = serde_json::from_slice(&config).unwrap();
    let mut tensors = load(case);
    let tokens = tensors.remove("golden.tokens").unwrap().to_dtype(DType::U32).unwrap();
    let logits = tensors.remove("golden.logits").unwrap();
    let nats = tensors.remove("golden.nats").unwrap().to_vec1().unwrap();
    assert_eq!((logits.dims(), nats.len()), (&[200, config.vocab_size][..], 2));
    let vocabulary = common::vocabulary(config.vocab_size);
    let parts = ModelParts::new(config, vocabulary, tensors);
    Golden {
        model: LanguageModel::from_parts(parts, &Device::Cpu, Precision::F32).unwrap(),
        tokens: tokens.to_vec1().unwrap(),
        logits: logits.flatten_all().unwrap().to_vec1().unwrap(),
        nats,
    }
}

/// Both ways through the model, the whole text at once and token by token; and both ways to evaluate it.
fn assert_parity(case: &str) {
    let golden = golden(case);
    let mut state = golden.model.fresh_state().unwrap();
    let row = Row { state: &mut state, tokens: &golden.tokens, want: Want::Each };
    let outputs = golden.model.forward(&mut [row]).unwrap();
    let off = difference(&outputs[0].logits, &golden.logits);
    assert!(off <= TOLERANCE, "{case}: off by {off} when fed at once");

    let mut state = golden.model.fresh_state().unwrap();
    let mut logits = Vec::new();
    for token in &golden.tokens {
        let row = Row { state: &mut state, tokens: &[], want: Want::Next };
        logits.extend(golden.model.forward(&mut [row]).unwrap().remove(0).logits);
        let row = Row { state: &mut state, tokens: &[*token], want: Want::Nothing };
        golden.model.forward(&mut [row]).unwrap();
    }
    let off = difference(&logits, &golden.logits);
    assert!(off <= TOLERANCE, "{case}: off by {off} when fed token by token");

    let whole = evaluate(&golden.model, &golden.tokens, |_| {}).unwrap();
    let lanes = evaluate_in_lanes(&golden.model, &golden.tokens, LANES, |_| {}).unwrap();
    assert_eq!((whole.tokens, lanes.tokens), (200, 6 * 32));
    for (evaluation, nats) in [whole, lanes].iter().zip(golden.nats) {
        let found = Evaluation::nats_per_token(evaluation).unwrap();
        assert!((found - nats).abs() <= f64::from(TOLERANCE), "{case}: {found} nats, not {nats}");
    }
}

#[test]
fn one_layer_untied() {
    assert_parity("one_layer_untied");
}

#[test]
fn two_layers_tied_no_biases() {
    assert_parity("two_layers_tied_no_biases");
}

#[test]
fn three_layers_untied() {
    assert_parity("three_layers_untied");
}

#[test]
fn three_layers_tied() {
    assert_parity("three_layers_tied");
}

#[test]
fn two_layers_one_hot() {
    assert_parity("two_layers_one_hot");
}

/// Sizes at which sums are long and logits are large, as in use: hidden sizes of 416 to 512, trained weights.
#[test]
fn the_demo_members() {
    for name in ["alto", "bass", "tenor"] {
        let model = LanguageModel::load(&path(&format!("../deploy/demo/{name}")), &Device::Cpu).unwrap();
        let golden = load(&format!("demo_{name}"));
        let tokens: Vec<u32> = golden["golden.tokens"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        assert_eq!(golden["golden.logits"].dims(), [200, model.config().vocab_size / 16]);
        let expected: Vec<f32> = golden["golden.logits"].flatten_all().unwrap().to_vec1().unwrap();
        let mut state = model.fresh_state().unwrap();
        let row = Row { state: &mut state, tokens: &tokens, want: Want::Each };
        let logits = model.forward(&mut [row]).unwrap().remove(0).logits;
        let every_16th: Vec<f32> = logits.into_iter().step_by(16).collect();
        let off = difference(&every_16th, &expected);
        assert!(off <= TOLERANCE, "{name}: off by {off}");
    }
}
