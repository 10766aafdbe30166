//! One token for each character: a BPE model without merges, which needs no pattern and is linear in the text.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Parts, numbered, unknown_token};
use crate::error::VocabularyError;
use crate::vocabulary::Vocabulary;

impl Vocabulary {
    /// One token for each distinct character of the text, ids in the order of their code points.
    ///
    /// # Errors
    /// [`VocabularyError::Empty`] for an empty text.
    pub fn train_characters(text: &str) -> Result<Self, VocabularyError> {
        let characters: BTreeSet<char> = text.chars().collect();
        character_vocabulary(&numbered(characters.into_iter().map(String::from).collect())?)
    }
}

/// Tokens that are single characters, and perhaps special ones (`<unk>`), which no text produces.
pub(super) fn character_vocabulary(vocab: &Map<String, Value>) -> Result<Vocabulary, VocabularyError> {
    let unknown = unknown_token(vocab);
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": vocab,
        "merges": [],
    });
    let parts = Parts {
        normalizer: Value::Null,
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Fuse"}),
        model,
    };
    parts.build()
}
