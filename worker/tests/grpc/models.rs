//! Small models with fixed weights.

use std::path::Path;

use candle_core::{Device, Tensor};
use chorus_model::{Config, FORMAT, LanguageModel, ModelParts, Start, Tensors, WeightType};
use chorus_text::Vocabulary;

/// The vocabulary's size in most tests.
pub(crate) const VOCABULARY: usize = 30;

/// Two layers of different sizes, a start token, all biases.
pub(crate) fn config(vocab_size: usize) -> Config {
    Config {
        format: FORMAT,
        name: "small".to_owned(),
        vocab_size,
        embedding_size: Some(5),
        hidden_size: 8,
        layers: 2,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::Token(2),
        end: Some(1),
    }
}

/// Writes a model whose numbers are all in -1..1.
pub(crate) fn write(directory: &Path, config: Config) {
    let shapes = config.tensor_shapes().into_iter().enumerate();
    let tensors = shapes.map(|(index, (name, shape))| {
        let count = shape.iter().product();
        (name, Tensor::from_vec(values(index as u32, count), shape, &Device::Cpu).unwrap())
    });
    write_parts(directory, config, tensors.collect());
}

/// Writes a model whose first distribution is finite and whose others are not.
pub(crate) fn write_overflowing(directory: &Path) {
    let config = Config { start: Start::ZeroState, ..config(VOCABULARY) };
    let number = |name: &str| match name {
        "linear.weight" => 3e38_f32,
        _ => 9.0,
    };
    let shapes = config.tensor_shapes().into_iter();
    let tensors = shapes.map(|(name, shape)| {
        let tensor = Tensor::full(number(&name), shape, &Device::Cpu).unwrap();
        (name, tensor)
    });
    let tensors = tensors.collect();
    write_parts(directory, config, tensors);
}

/// The same model in this process.
pub(crate) fn load(directory: &Path) -> LanguageModel {
    LanguageModel::load(directory, &Device::Cpu).unwrap()
}

/// Fixed tokens of a vocabulary.
pub(crate) fn tokens(seed: u32, count: usize) -> Vec<u32> {
    values(seed + 1000, count).iter().map(|value| value.to_bits() % VOCABULARY as u32).collect()
}

fn write_parts(directory: &Path, config: Config, tensors: Tensors) {
    let text: String = ('一'..).take(config.vocab_size).collect();
    let vocabulary = Vocabulary::train_characters(&text).unwrap();
    ModelParts { config, vocabulary, tensors }.save(directory, WeightType::F32).unwrap();
}

fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
