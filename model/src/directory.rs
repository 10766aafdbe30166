//! The model directory: `config.json`, `tokenizer.json` and the weights, read and written as one. The weights are
//! `model.safetensors` or, where they are quantised, `model.gguf`.
//!
//! Knows nothing about how a model is run.

use std::io;
use std::path::Path;

use chorus_text::Vocabulary;
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::file_names::{CONFIG_FILE, QUANTIZED_WEIGHTS_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::files::{ReadError, read_bounded, write_atomically};
use crate::gguf;
use crate::load_error::{LoadError, SaveError};
use crate::new_directory::NewDirectory;
use crate::quantization::{Quantization, QuantizeError, QuantizedMatrices};
use crate::weights::{self, Tensors, WeightType, WeightsError};

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
    /// Exactly the tensors of [`Config::tensor_shapes`], f32, finite. Of a quantised model what its blocks stand for.
    pub tensors: Tensors,
    /// The blocks of a quantised model.
    pub(crate) quantized: Option<QuantizedMatrices>,
}

impl ModelParts {
    /// Parts that fit together, nothing quantised.
    pub fn new(config: Config, vocabulary: Vocabulary, tensors: Tensors) -> Self {
        Self { config, vocabulary, tensors, quantized: None }
    }

    /// Reads and checks a model directory. Weights stay in memory.
    ///
    /// # Errors
    /// The file at fault, what is wrong with it and what is allowed.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let config = read_config(&directory.join(CONFIG_FILE))?;
        let vocabulary = read_vocabulary(&directory.join(TOKENIZER_FILE), &config)?;
        let (tensors, quantized) = read_weights(directory, &config)?;
        Ok(Self { config, vocabulary, tensors, quantized })
    }

    /// Reads a model directory and quantises the model where that is asked for.
    ///
    /// # Errors
    /// As [`ModelParts::load`], and as [`ModelParts::quantize`].
    pub fn load_as(directory: &Path, quantization: Option<Quantization>) -> Result<Self, LoadError> {
        let parts = Self::load(directory)?;
        let Some(quantization) = quantization else { return Ok(parts) };
        parts.quantize(quantization).map_err(|source| LoadError::Quantize {
            directory: directory.to_owned(),
            source: Box::new(source),
        })
    }

    /// The same model with its matrices in blocks, and its embedding in f16; the tensors become what those stand for.
    ///
    /// ```
    /// use chorus_model::{ModelParts, Quantization};
    ///
    /// let parts = ModelParts::load("../deploy/demo/alto".as_ref())?.quantize(Quantization::Q4K)?;
    /// assert_eq!(parts.quantization(), Some(Quantization::Q4K));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The model is quantised already, rows would grow by more than a third to fill whole blocks, or numbers are too large.
    pub fn quantize(mut self, quantization: Quantization) -> Result<Self, QuantizeError> {
        if let Some(found) = self.quantization() {
            return Err(QuantizeError::Already { found });
        }
        let quantized = QuantizedMatrices::quantize(&mut self.tensors, &self.config, quantization)?;
        Ok(Self { quantized: Some(quantized), ..self })
    }

    /// How the model is quantised, if it is.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantized.as_ref().map(|quantized| quantized.quantization)
    }

    /// Tells whether two models are the same: SHA-256 of config, vocabulary, every number and how it is quantised.
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
        // The numbers follow from the blocks, but products with blocks are other arithmetic.
        if let Some(quantization) = self.quantization() {
            digest.update(quantization.name());
        }
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    }

    /// Writes a model directory that is not there yet, or is empty: as a whole or not at all.
    ///
    /// # Errors
    /// The directory is taken, can't be written, or the tensors don't fit their types.
    pub fn save_new(&self, directory: &Path, number_type: WeightType) -> Result<(), SaveError> {
        let new = NewDirectory::begin(directory)?;
        self.save(new.path(), number_type)?;
        new.finish()
    }

    /// Writes a model directory, which is made where it is missing. Each file is replaced in one piece, the weights
    /// before the config. The numbers of a model that is not quantised are stored in `number_type`; those of one that is
    /// have their types.
    pub fn save(&self, directory: &Path, number_type: WeightType) -> Result<(), SaveError> {
        self.config.validate()?;
        let (name, other, weights) = match &self.quantized {
            None => {
                let weights = weights::encode(&self.tensors, &self.config, number_type)?;
                (WEIGHTS_FILE, QUANTIZED_WEIGHTS_FILE, weights)
            }
            Some(quantized) => {
                let weights = gguf::encode(&self.tensors, quantized, &self.config)?;
                (QUANTIZED_WEIGHTS_FILE, WEIGHTS_FILE, weights)
            }
        };
        std::fs::create_dir_all(directory)
            .map_err(|source| SaveError::Write { path: directory.to_owned(), source })?;
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.join(name);
            write_atomically(&path, bytes).map_err(|source| SaveError::Write { path, source })
        };
        write(name, &weights)?;
        write(TOKENIZER_FILE, self.vocabulary.to_json().as_bytes())?;
        write(CONFIG_FILE, self.config.to_json().as_bytes())?;
        // What stood there before is the model no more.
        let path = directory.join(other);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SaveError::Write { path, source }),
            _ => Ok(()),
        }
    }
}

/// The tensors of a directory's one file with weights, and their blocks where it is that of a quantised model.
fn read_weights(
    directory: &Path,
    config: &Config,
) -> Result<(Tensors, Option<QuantizedMatrices>), LoadError> {
    let [plain, quantized] = [WEIGHTS_FILE, QUANTIZED_WEIGHTS_FILE].map(|name| directory.join(name));
    // A link to nowhere is there, too: it is what can't be read.
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    let unusable =
        |path: &Path, source| LoadError::Weights { path: path.to_owned(), source: Box::new(source) };
    match (is_there(&plain), is_there(&quantized)) {
        (true, true) => Err(LoadError::TwoWeights { directory: directory.to_owned() }),
        (false, true) => {
            let bytes = read(&quantized, gguf::largest_file(config))?;
            let decoded = gguf::decode(&bytes, config).map_err(|source| unusable(&quantized, source))?;
            Ok((decoded.0, Some(decoded.1)))
        }
        (_, false) => {
            let largest = config.parameters().saturating_mul(4).saturating_add(MAX_WEIGHTS_HEADER_BYTES);
            let bytes = read(&plain, largest)?;
            let tensors = weights::decode(&bytes, config).map_err(|source| unusable(&plain, source))?;
            Ok((tensors, None))
        }
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
