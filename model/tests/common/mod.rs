//! Small models with fixed weights, for the tests of this crate.
#![allow(dead_code, reason = "every test file uses a part of it")]

use candle_core::{Device, Tensor};
use chorus_model::{Config, FORMAT, LanguageModel, ModelParts, Precision, Quantization, Start, Tensors};
use chorus_text::Vocabulary;

/// A vocabulary of `size` characters.
pub(crate) fn vocabulary(size: usize) -> Vocabulary {
    let text: String = ('a'..).take(size).collect();
    Vocabulary::train_characters(&text).unwrap()
}

/// Two layers, 11 tokens, embedding and hidden size different, with all biases and a start token.
pub(crate) fn config() -> Config {
    Config {
        format: FORMAT,
        name: "small".to_owned(),
        vocab_size: 11,
        embedding_size: Some(5),
        hidden_size: 9,
        layers: 2,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::Token(2),
        end: None,
    }
}

/// Numbers in -1..1 that depend on nothing but `seed`.
pub(crate) fn values(seed: usize, count: usize) -> Vec<f32> {
    let mut state = (seed as u32).wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// All tensors of a config with fixed values.
pub(crate) fn tensors(config: &Config) -> Tensors {
    seeded_tensors(config, 0)
}

/// All tensors of a config with values that depend on a seed.
pub(crate) fn seeded_tensors(config: &Config, seed: usize) -> Tensors {
    let tensor = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let values = values(seed + index, shape.iter().product());
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    config.tensor_shapes().into_iter().enumerate().map(tensor).collect()
}

pub(crate) fn parts(config: Config) -> ModelParts {
    let (vocabulary, tensors) = (vocabulary(config.vocab_size), tensors(&config));
    ModelParts::new(config, vocabulary, tensors)
}

pub(crate) fn model(config: Config) -> LanguageModel {
    LanguageModel::from_parts(parts(config), &Device::Cpu, Precision::F32).unwrap()
}

/// A model in every form in which its weights are multiplied, by what that is called: only those whose blocks fit.
pub(crate) fn in_every_form(config: &Config) -> Vec<(String, LanguageModel)> {
    let load = |parts, precision| LanguageModel::from_parts(parts, &Device::Cpu, precision).unwrap();
    let plain = [Precision::F32, Precision::Int8].into_iter();
    let plain = plain.map(|precision| (precision.to_string(), load(parts(config.clone()), precision)));
    let quantized = Quantization::ALL.into_iter().filter_map(|quantization| {
        let parts = parts(config.clone()).quantize(quantization).ok()?;
        Some((quantization.to_string(), load(parts, Precision::F32)))
    });
    plain.chain(quantized).collect()
}

/// Fixed tokens of a vocabulary.
pub(crate) fn tokens(seed: usize, count: usize, vocab_size: usize) -> Vec<u32> {
    let token = |value: f32| ((value + 1.0) / 2.0 * vocab_size as f32) as u32;
    values(seed + 1000, count).into_iter().map(|value| token(value).min(vocab_size as u32 - 1)).collect()
}

/// The largest difference of two rows of numbers, which must be equally many and finite.
pub(crate) fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    assert!(one.iter().chain(other).all(|value| value.is_finite()));
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}
