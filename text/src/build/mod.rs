//! Vocabularies that are made here: from a text, a word list or a token map. Each is written as the JSON of an
//! ordinary `tokenizer.json` and then read like any other, so what is built is what every other program reads.

mod bpe;
mod characters;
mod token_map;
mod words;

use serde_json::{Map, Value, json};

pub(crate) use words::{LINE_END, line_end_normalizer, word_decoder};

use crate::error::VocabularyError;
use crate::vocabulary::Vocabulary;

/// The tokens that are taken for "unknown", the first that a vocabulary has.
const UNKNOWN_TOKENS: [&str; 5] = ["<unk>", "<UNK>", "[UNK]", "<|unk|>", "<oov>"];

/// The parts of a `tokenizer.json` that differ between the vocabularies of this module.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
}

impl Parts {
    fn build(self) -> Result<Vocabulary, VocabularyError> {
        let document = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": null,
            "decoder": self.decoder,
            "model": self.model,
        });
        Vocabulary::from_json(document.to_string().as_bytes())
    }
}

/// Token to id, the ids counted up.
fn numbered(tokens: Vec<String>) -> Result<Map<String, Value>, VocabularyError> {
    let mut vocab = Map::new();
    for (id, token) in tokens.into_iter().enumerate() {
        if vocab.contains_key(&token) {
            return Err(VocabularyError::DuplicateToken { token });
        }
        vocab.insert(token, id.into());
    }
    Ok(vocab)
}

fn unknown_token(vocab: &Map<String, Value>) -> Option<&'static str> {
    UNKNOWN_TOKENS.into_iter().find(|token| vocab.contains_key(*token))
}
