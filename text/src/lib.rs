//! The vocabulary: text to token ids and back, with Hugging Face `tokenizers` underneath.
//!
//! A [`Vocabulary`] is read from a `tokenizer.json` or built here (characters, words, byte-level BPE). It encodes
//! only what it can express, decodes whole sequences and streams of tokens to the same text, and has a fingerprint
//! by which the members of an ensemble agree that they speak of the same tokens.
//!
//! This crate knows nothing about models, networks or async runtimes.

mod build;
mod document;
mod encode;
mod error;
#[cfg(test)]
mod fuzz;
mod rendering;
mod stream;
mod vocabulary;

pub use error::{EncodeError, VocabularyError};
pub use stream::TextStream;
pub use vocabulary::Vocabulary;
