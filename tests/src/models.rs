//! Models for scenarios: the demo members of the repository, and small random ones of any vocabulary.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use chorus_model::{Config, FORMAT, ModelParts, Start, WeightType};
use chorus_text::Vocabulary;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The demo members' names, in member order.
pub const DEMO: [&str; 3] = ["alto", "bass", "tenor"];

/// The directory of a demo member.
pub fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").join(name)
}

/// Lines of made-up words: enough structure to learn something from, the same for the same seed.
pub fn nonsense(seed: u64, characters: usize) -> String {
    let words = ["sol", "la", "mi", "re", "fa", "do", "ti", "sing", "rest"];
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = String::new();
    while text.len() < characters {
        for _ in 0..random.random_range(2..9) {
            text.push_str(words[random.random_range(0..words.len())]);
            text.push(' ');
        }
        text.push('\n');
    }
    text
}

/// Writes a small model with random weights and a vocabulary of the text's characters.
pub fn characters(directory: &Path, text: &str) -> ModelParts {
    random(directory, text, 17)
}

/// Writes a small model with the random weights of a seed and a vocabulary of the text's characters.
pub fn random(directory: &Path, text: &str, seed: u64) -> ModelParts {
    let vocabulary = Vocabulary::train_characters(text).expect("a text with characters");
    let config = Config {
        format: FORMAT,
        name: "small".to_owned(),
        vocab_size: vocabulary.len() as usize,
        embedding_size: Some(5),
        hidden_size: 8,
        layers: 2,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::ZeroState,
        end: None,
    };
    let mut random = StdRng::seed_from_u64(seed);
    let shapes = config.tensor_shapes().into_iter();
    let tensors = shapes.map(|(name, shape)| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has"))
    });
    let parts = ModelParts::new(config, vocabulary, tensors.collect());
    parts.save(directory, WeightType::F32).expect("the model is written");
    parts
}
