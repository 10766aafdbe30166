//! The model directory: `config.json`, `model.safetensors`, `tokenizer.json`, read and written as one.
//!
//! Knows nothing about how a model is run.

use std::io;
use std::path::{Path, PathBuf};

use chorus_text::{Vocabulary, VocabularyError};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::config::{Config, ConfigError};
use crate::files::{ReadError, read_bounded, write_atomically};
use crate::weights::{self, Tensors, WeightType, WeightsError};

/// The config's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer's file name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_TOKENIZER_BYTES: u64 = 1 << 28;
/// What a weights file may have besides the numbers.
const MAX_WEIGHTS_HEADER_BYTES: u64 = 1 << 24;

/// Everything that makes a model, checked: what a model directory holds.
#[derive(Debug, Clone)]
pub struct ModelParts {
    /// The valid config.
    pub config: Config,
    /// The tokenizer; it has `config.vocab_size` tokens.
    pub vocabulary: Vocabulary,
    /// Exactly the tensors of [`Config::tensor_shapes`], f32, finite.
    pub tensors: Tensors,
}

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
    /// The config describes no model.
    #[error("the config describes no model")]
    Config(#[from] ConfigError),
    /// The tensors are not those of the config.
    #[error("the tensors are not those of the config")]
    Weights(#[from] WeightsError),
}

impl ModelParts {
    /// Reads and checks a model directory. Weights stay in memory.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let config = read_config(&directory.join(CONFIG_FILE))?;
        let vocabulary = read_vocabulary(&directory.join(TOKENIZER_FILE), &config)?;
        let path = directory.join(WEIGHTS_FILE);
        let largest = config.parameters().saturating_mul(4).saturating_add(MAX_WEIGHTS_HEADER_BYTES);
        let tensors = weights::decode(&read(&path, largest)?, &config)
            .map_err(|source| LoadError::Weights { path, source: Box::new(source) })?;
        Ok(Self { config, vocabulary, tensors })
    }

    /// Tells whether two models are the same: SHA-256 of config, vocabulary and every number.
    ///
    /// # Errors
    /// A tensor can't be read.
    pub fn fingerprint(&self) -> Result<String, WeightsError> {
        let mut digest = Sha256::new();
        digest.update(self.config.to_json());
        digest.update(self.vocabulary.fingerprint());
        for (name, tensor) in &self.tensors {
            digest.update(name);
            digest.update(weights::encode_values(name, tensor, WeightType::F32)?);
        }
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    }

    /// Writes a model directory, which is made where it is missing. Each file is replaced in one piece, the weights
    /// before the config.
    pub fn save(&self, directory: &Path, number_type: WeightType) -> Result<(), SaveError> {
        self.config.validate()?;
        let weights = weights::encode(&self.tensors, &self.config, number_type)?;
        std::fs::create_dir_all(directory)
            .map_err(|source| SaveError::Write { path: directory.to_owned(), source })?;
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.join(name);
            write_atomically(&path, bytes).map_err(|source| SaveError::Write { path, source })
        };
        write(WEIGHTS_FILE, &weights)?;
        write(TOKENIZER_FILE, self.vocabulary.to_json().as_bytes())?;
        write(CONFIG_FILE, self.config.to_json().as_bytes())
    }
}

fn read(path: &Path, largest: u64) -> Result<Vec<u8>, LoadError> {
    let path = path.to_owned();
    read_bounded(&path, largest).map_err(|error| match error {
        ReadError::Io(source) => LoadError::Read { path, source },
        ReadError::TooLarge { found, largest } => LoadError::TooLarge { path, found, largest },
    })
}

fn read_config(path: &Path) -> Result<Config, LoadError> {
    let bytes = read(path, MAX_CONFIG_BYTES)?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::ConfigSyntax { path: path.to_owned(), source })?;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(source) => Err(LoadError::Config { path: path.to_owned(), source }),
    }
}

fn read_vocabulary(path: &Path, config: &Config) -> Result<Vocabulary, LoadError> {
    let bytes = read(path, MAX_TOKENIZER_BYTES)?;
    let vocabulary = Vocabulary::from_json(&bytes)
        .map_err(|source| LoadError::Vocabulary { path: path.to_owned(), source })?;
    let (found, vocab_size) = (vocabulary.len(), config.vocab_size);
    if found as usize != vocab_size {
        return Err(LoadError::VocabularySize { path: path.to_owned(), found, vocab_size });
    }
    Ok(vocabulary)
}
