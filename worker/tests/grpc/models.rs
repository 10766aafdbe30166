//! Small models with fixed weights.

use std::{ops::RangeInclusive, path::Path};

use candle_core::{Device, Tensor};
use chorus_model::{
    Capacity, Config, FORMAT, LanguageModel, ModelParts, Precision, Processor, Start, Tensors, WeightType,
};
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

/// Writes a model whose distributions are finite until it has read one of these tokens. All its weights are finite.
pub(crate) fn write_overflowing(directory: &Path, at: RangeInclusive<u32>) {
    let config = Config { start: Start::ZeroState, ..config(VOCABULARY) };
    let shapes = config.tensor_shapes().into_iter();
    let tensors = shapes.map(|(name, shape)| {
        // The state stays zero, which hides the output layer, as long as embeddings are zero.
        let row = |row: usize| match name.as_str() {
            "linear.weight" => 3e38_f32,
            "embed.weight" if at.contains(&(row as u32)) => 9.0,
            name if name.starts_with("rnn.weight_ih") => 9.0,
            _ => 0.0,
        };
        let columns = shape.iter().skip(1).product();
        let values: Vec<f32> = (0..shape[0]).flat_map(|index| vec![row(index); columns]).collect();
        (name.clone(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    });
    let tensors = tensors.collect();
    write_parts(directory, config, tensors);
}

/// Whether models run on a device: these tests are built twice, and once named after it.
pub(crate) const ON_DEVICE: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"device");

/// Where models run: on the device that `CHORUS_TEST_DEVICE` names, or on an emulated one.
pub(crate) fn device() -> String {
    if ON_DEVICE {
        std::env::var("CHORUS_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned())
    } else {
        "cpu".to_owned()
    }
}

/// The same model in this process, on a processor like the worker's.
pub(crate) fn load(directory: &Path) -> LanguageModel {
    let (parts, processor) = (ModelParts::load(directory).unwrap(), Processor::open(&device()).unwrap());
    let capacity = Capacity { states: 64, tokens: 512, logits: 1 << 20 };
    LanguageModel::on(parts, &processor, Precision::F32, capacity).unwrap()
}

/// Fixed tokens of a vocabulary.
pub(crate) fn tokens(seed: u32, count: usize) -> Vec<u32> {
    values(seed + 1000, count).iter().map(|value| value.to_bits() % VOCABULARY as u32).collect()
}

fn write_parts(directory: &Path, config: Config, tensors: Tensors) {
    let text: String = ('一'..).take(config.vocab_size).collect();
    let vocabulary = Vocabulary::train_characters(&text).unwrap();
    ModelParts::new(config, vocabulary, tensors).save(directory, WeightType::F32).unwrap();
}

fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
