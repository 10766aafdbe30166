//! Why a model directory can't be read or written. Every sentence names the file, what is wrong with it and what is allowed.

use std::io;
use std::path::PathBuf;

use chorus_text::VocabularyError;
use thiserror::Error;

use crate::config::ConfigError;
use crate::file_names::{CONFIG_FILE, QUANTIZED_WEIGHTS_FILE, WEIGHTS_FILE};
use crate::quantization::QuantizeError;
use crate::weights::WeightsError;

/// Why a model can't be loaded. Every message names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is larger than it can be.
    #[error("{} has {found} bytes, allowed are {largest}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest allowed size; for weights it follows from the config.
        largest: u64,
    },
    /// `config.json` is no JSON, lacks a key, or has one too many.
    #[error("{} is not a model's config", path.display())]
    ConfigSyntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A value in the config is out of its range.
    #[error("{} describes no model", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// Which key.
        source: ConfigError,
    },
    /// The tokenizer is damaged.
    #[error("{} is not a usable tokenizer", path.display())]
    Vocabulary {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: VocabularyError,
    },
    /// The tokenizer has more or fewer tokens than the model.
    #[error("{} has {found} tokens, but vocab_size in {CONFIG_FILE} is {vocab_size}: they must be equal", path.display())]
    VocabularySize {
        /// Which file.
        path: PathBuf,
        /// The tokenizer's tokens.
        found: u32,
        /// The config's.
        vocab_size: usize,
    },
    /// The weights are damaged or not those of the config.
    #[error("{} does not hold this model's weights", path.display())]
    Weights {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        source: Box<WeightsError>,
    },
    /// There are two files with weights.
    #[error(
        "{} has both {WEIGHTS_FILE} and {QUANTIZED_WEIGHTS_FILE}: remove the one that is not the model", directory.display()
    )]
    TwoWeights {
        /// The model directory.
        directory: PathBuf,
    },
    /// The model can't be quantised while it is loaded.
    #[error("{} can't be quantised", directory.display())]
    Quantize {
        /// The model directory.
        directory: PathBuf,
        /// Why not.
        source: Box<QuantizeError>,
    },
    /// The device can't hold or run the model.
    #[error("the model can't be put on the device")]
    Device(#[source] candle_core::Error),
}

/// Why a model can't be saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The directory or a file can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The place of a new directory is taken.
    #[error("{} is there already, and not empty", path.display())]
    Taken {
        /// Which place.
        path: PathBuf,
    },
    /// The config describes no model.
    #[error("the config describes no model")]
    Config(#[from] ConfigError),
    /// The tensors are not those of the config.
    #[error("the tensors are not those of the config")]
    Weights(#[from] WeightsError),
}
