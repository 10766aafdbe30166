//! What a model is: the contents of `config.json`, its limits, and every tensor's name and shape.
//!
//! This is the only place that knows the names and shapes of the tensors; it knows nothing about candle or files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The only `format` that this version reads and writes.
pub const FORMAT: u32 = 1;
/// Largest allowed `embedding_size` and `hidden_size`.
pub const MAX_DIMENSION: usize = 65_536;
/// Largest allowed number of layers.
pub const MAX_LAYERS: usize = 64;
/// Largest allowed `vocab_size`.
pub const MAX_VOCAB_SIZE: usize = 1 << 24;
/// Largest allowed length of a model's name, in characters.
pub const MAX_NAME_CHARACTERS: usize = 100;

/// What the first token of a sequence is conditioned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Nothing is fed: the output layer reads the zero hidden vector, so the first logits are `linear.bias`.
    ZeroState,
    /// This token is fed into a zero state first (a begin-of-sequence token).
    Token(u32),
}

/// `config.json`: the shape of an LSTM language model (embedding -> LSTM layers -> linear).
///
/// ```
/// let text = r#"{"format":1,"name":"alto","vocab_size":65,"embedding_size":16,"hidden_size":32,"layers":2,
///     "tied":false,"lstm_bias":true,"output_bias":true,"start":{"token":0},"end":null}"#;
/// let config: chorus_model::Config = serde_json::from_str(text).unwrap();
/// config.validate().unwrap();
/// assert_eq!(config.tensor_shapes()["rnn.weight_ih_l1"], vec![4 * 32, 32]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this format: [`FORMAT`].
    pub format: u32,
    /// The model's name, for people.
    pub name: String,
    /// Number of tokens V; every token id is below it.
    pub vocab_size: usize,
    /// Embedding size E, or none for one-hot input, whose first layer reads the token's row of `weight_ih_l0`ᵀ.
    pub embedding_size: Option<usize>,
    /// Hidden size H of every layer.
    pub hidden_size: usize,
    /// Number of LSTM layers L.
    pub layers: usize,
    /// Whether the output layer uses the embedding's matrix; needs E = H.
    pub tied: bool,
    /// Whether the layers have `bias_ih` and `bias_hh`.
    pub lstm_bias: bool,
    /// Whether the output layer has a bias.
    pub output_bias: bool,
    /// What the first token is conditioned on.
    pub start: Start,
    /// The token that ends a generation, if there is one.
    pub end: Option<u32>,
}

/// Why a [`Config`] describes no model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Written by another version.
    #[error("format is {found}, but this version reads format {FORMAT} only")]
    Format {
        /// What the file says.
        found: u32,
    },
    /// The name is empty, too long, or not printable.
    #[error("name must have 1 to {MAX_NAME_CHARACTERS} characters and no control characters")]
    Name,
    /// A number is outside its range.
    #[error("{field} is {found}, allowed is 1 to {largest}")]
    OutOfRange {
        /// The key in `config.json`.
        field: &'static str,
        /// What the file says.
        found: usize,
        /// The largest allowed value.
        largest: usize,
    },
    /// Tied weights need an embedding of the hidden size.
    #[error(
        "tied needs embedding_size equal to hidden_size, but they are {} and {hidden_size}",
        embedding_size.map_or_else(|| "null".to_owned(), |size| size.to_string())
    )]
    TiedSizesDiffer {
        /// E, none for one-hot input.
        embedding_size: Option<usize>,
        /// H.
        hidden_size: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("{field} is token {found}, but vocab_size is {vocab_size}, so the largest token id is {}", vocab_size - 1)]
    TokenOutOfVocabulary {
        /// The key in `config.json`.
        field: &'static str,
        /// The token id.
        found: u32,
        /// V.
        vocab_size: usize,
    },
}

/// The tensors' names, exactly as PyTorch's `state_dict` has them.
pub(crate) mod names {
    pub(crate) const EMBED: &str = "embed.weight";
    pub(crate) const LINEAR_WEIGHT: &str = "linear.weight";
    pub(crate) const LINEAR_BIAS: &str = "linear.bias";

    pub(crate) fn weight_ih(layer: usize) -> String {
        format!("rnn.weight_ih_l{layer}")
    }

    pub(crate) fn weight_hh(layer: usize) -> String {
        format!("rnn.weight_hh_l{layer}")
    }

    pub(crate) fn bias_ih(layer: usize) -> String {
        format!("rnn.bias_ih_l{layer}")
    }

    pub(crate) fn bias_hh(layer: usize) -> String {
        format!("rnn.bias_hh_l{layer}")
    }
}

impl Config {
    /// Checks every field against its range, and the fields against each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.format != FORMAT {
            return Err(ConfigError::Format { found: self.format });
        }
        let characters = self.name.chars().count();
        if characters == 0 || characters > MAX_NAME_CHARACTERS || self.name.chars().any(char::is_control) {
            return Err(ConfigError::Name);
        }
        check_range("vocab_size", self.vocab_size, MAX_VOCAB_SIZE)?;
        check_range("hidden_size", self.hidden_size, MAX_DIMENSION)?;
        check_range("layers", self.layers, MAX_LAYERS)?;
        if let Some(embedding_size) = self.embedding_size {
            check_range("embedding_size", embedding_size, MAX_DIMENSION)?;
        }
        if self.tied && self.embedding_size != Some(self.hidden_size) {
            return Err(ConfigError::TiedSizesDiffer {
                embedding_size: self.embedding_size,
                hidden_size: self.hidden_size,
            });
        }
        if let Start::Token(token) = self.start {
            self.check_token("start", token)?;
        }
        self.end.map_or(Ok(()), |token| self.check_token("end", token))
    }

    /// The text of `config.json`.
    pub fn to_json(&self) -> String {
        // A struct of numbers, strings and enums always serialises.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Every tensor of `model.safetensors`: its name and its shape. The file has exactly these.
    pub fn tensor_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let gates = 4 * self.hidden_size;
        let mut shapes = BTreeMap::new();
        if let Some(embedding_size) = self.embedding_size {
            shapes.insert(names::EMBED.to_owned(), vec![self.vocab_size, embedding_size]);
        }
        for layer in 0..self.layers {
            shapes.insert(names::weight_ih(layer), vec![gates, self.input_size(layer)]);
            shapes.insert(names::weight_hh(layer), vec![gates, self.hidden_size]);
            if self.lstm_bias {
                shapes.insert(names::bias_ih(layer), vec![gates]);
                shapes.insert(names::bias_hh(layer), vec![gates]);
            }
        }
        if !self.tied {
            shapes.insert(names::LINEAR_WEIGHT.to_owned(), vec![self.vocab_size, self.hidden_size]);
        }
        if self.output_bias {
            shapes.insert(names::LINEAR_BIAS.to_owned(), vec![self.vocab_size]);
        }
        shapes
    }

    /// The number of parameters: the elements of all tensors, a tied matrix counted once.
    pub fn parameters(&self) -> u64 {
        let elements = |shape: &Vec<usize>| shape.iter().map(|&size| size as u64).product::<u64>();
        self.tensor_shapes().values().map(elements).sum()
    }

    /// The number of values in one sequence's state: h and c of every layer.
    pub fn state_size(&self) -> usize {
        2 * self.layers * self.hidden_size
    }

    fn input_size(&self, layer: usize) -> usize {
        if layer == 0 { self.embedding_size.unwrap_or(self.vocab_size) } else { self.hidden_size }
    }

    fn check_token(&self, field: &'static str, found: u32) -> Result<(), ConfigError> {
        if (found as usize) < self.vocab_size {
            return Ok(());
        }
        Err(ConfigError::TokenOutOfVocabulary { field, found, vocab_size: self.vocab_size })
    }
}

fn check_range(field: &'static str, found: usize, largest: usize) -> Result<(), ConfigError> {
    if (1..=largest).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, found, largest })
}
