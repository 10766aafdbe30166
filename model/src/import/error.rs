//! Why other people's weights can't become a model directory. Each sentence names the file or key and what was
//! expected of it.

use std::path::PathBuf;

use chorus_text::VocabularyError;

use crate::config::ConfigError;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The weights are in no format that is read here.
    #[error("{} is no checkpoint: {reason}", path.display())]
    Format {
        /// The weights file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The zip archive, its pickle or the safetensors header is damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The weights file.
        path: PathBuf,
        /// What its reader says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor's data can't be read.
    #[error("the tensor {key:?} can't be read: {reason}")]
    Tensor {
        /// Its key in the weights file.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of whole numbers, or of another type that weights don't have.
    #[error(
        "the tensor {key:?} has the type {found:?}, allowed are 64-, 32- and 16-bit floating point numbers"
    )]
    Type {
        /// Its key in the weights file.
        key: String,
        /// Its type.
        found: String,
    },
    /// A weight that is no number, or too large for 32 bits.
    #[error("the tensor {key:?} holds {value} at index {index}: every weight must be finite in 32 bits")]
    NotFinite {
        /// Its key in the weights file.
        key: String,
        /// Where, counted through the tensor row by row.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A key that has no place in the model.
    #[error(
        "the key {key:?} is neither an embedding, an LSTM nor an output layer: only models of embedding -> LSTM -> \
         linear can be imported, named like embedding.weight, lstm.weight_ih_l0, linear.weight"
    )]
    Unrecognised {
        /// The key in the weights file.
        key: String,
    },
    /// Two keys for one place in the model.
    #[error("both {first:?} and {second:?} could be the {role}: only one is expected")]
    Ambiguous {
        /// The place in the model.
        role: &'static str,
        /// One of the keys.
        first: String,
        /// The other one.
        second: String,
    },
    /// A kind of network that is no unidirectional LSTM.
    #[error("the key {key:?} belongs to {found}, expected is an LSTM in one direction (torch.nn.LSTM)")]
    OtherNetwork {
        /// The key that shows it.
        key: String,
        /// What it is.
        found: String,
    },
    /// A tensor that the others need.
    #[error("the key {expected:?} is missing: {reason}")]
    Missing {
        /// The key, with the prefix that the others have.
        expected: String,
        /// Why it is needed.
        reason: String,
    },
    /// A shape that disagrees with the others.
    #[error("the tensor {key:?} has the shape {found:?}, expected is {expected}")]
    Shape {
        /// Its key in the weights file.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that would fit, and why.
        expected: String,
    },
    /// The vocabulary and the weights have different numbers of tokens.
    #[error(
        "the vocabulary has {tokens} tokens, but the tensor {key:?} is made for {rows}: give the vocabulary that the \
         model was trained with"
    )]
    VocabularySize {
        /// Tokens in the vocabulary.
        tokens: usize,
        /// The key that fixes V.
        key: String,
        /// V, as the weights have it.
        rows: usize,
    },
    /// The vocabulary file can't be used.
    #[error("{} is no usable vocabulary", path.display())]
    Vocabulary {
        /// The vocabulary file.
        path: PathBuf,
        /// What is wrong with it.
        source: VocabularyError,
    },
    /// A start or end token that is not in the vocabulary.
    #[error("the {role} token {token:?} is not in the vocabulary")]
    UnknownToken {
        /// `start` or `end`.
        role: &'static str,
        /// The token asked for.
        token: String,
    },
    /// The resulting config is out of its limits.
    #[error("the imported model is not allowed")]
    Config(#[source] ConfigError),
}
