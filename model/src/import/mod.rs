//! Other people's weights: a PyTorch `state_dict` (`.pt`, safetensors) and a vocabulary become a model.
//!
//! What the keys mean is recognised by their usual names, the sizes follow from the shapes, and everything that does
//! not fit is one error that names the key. Nothing is guessed: a model with one tensor too many is refused, since it
//! computes something else.

mod assemble;
mod checkpoint;
mod element;
mod error;
mod file;
#[cfg(test)]
mod fuzz;
mod pickle;
mod recognise;
mod vocabulary;

use std::path::Path;

pub use error::ImportError;

use crate::config::{Config, FORMAT};
use crate::directory::ModelParts;
use checkpoint::Checkpoint;

/// What the first token of a text is conditioned on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartChoice {
    /// A begin token of the vocabulary, a word list's `<eos>`, or else the zero state.
    #[default]
    Suggested,
    /// The zero state.
    ZeroState,
    /// This token of the vocabulary.
    Token(String),
}

/// Which token ends a generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EndChoice {
    /// An end token of the vocabulary, if it has one. In a word list `<eos>` ends a line and not a text.
    #[default]
    Suggested,
    /// None: a generation goes on for as long as it may.
    None,
    /// This token of the vocabulary.
    Token(String),
}

/// A model made of other people's files.
#[derive(Debug)]
pub struct Imported {
    /// The model, whose vocabulary has as many tokens as its config says.
    pub parts: ModelParts,
    /// Which key of the weights file became which tensor.
    pub renamed: Vec<(String, String)>,
}

/// Reads a weights file and a vocabulary file as one model of the given name.
///
/// # Errors
/// The first thing that is missing, superfluous, damaged or does not fit; see [`ImportError`].
pub fn import(
    weights: &Path,
    vocabulary: &Path,
    name: &str,
    start: &StartChoice,
    end: &EndChoice,
) -> Result<Imported, ImportError> {
    let vocabulary = vocabulary::read(vocabulary)?;
    let assembled = assemble::assemble(&Checkpoint::open(weights)?)?;
    let tokens = vocabulary.len() as usize;
    if tokens != assembled.vocab_size {
        let (key, rows) = (assembled.vocab_key, assembled.vocab_size);
        return Err(ImportError::VocabularySize { tokens, key, rows });
    }
    let config = Config {
        format: FORMAT,
        name: name.to_owned(),
        vocab_size: assembled.vocab_size,
        embedding_size: assembled.embedding_size,
        hidden_size: assembled.hidden_size,
        layers: assembled.layers,
        tied: assembled.tied,
        lstm_bias: assembled.lstm_bias,
        output_bias: assembled.output_bias,
        start: vocabulary::start(&vocabulary, start)?,
        end: vocabulary::end(&vocabulary, end)?,
    };
    config.validate().map_err(ImportError::Config)?;
    let parts = ModelParts::new(config, vocabulary, assembled.tensors);
    Ok(Imported { parts, renamed: assembled.renamed })
}
