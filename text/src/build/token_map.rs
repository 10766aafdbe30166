//! A `vocab.json`: one JSON object, token to id. Whether it is a vocabulary of characters or of words shows in its
//! keys.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::{Deserializer, Map, Value};

use super::characters::character_vocabulary;
use super::words::word_vocabulary;
use crate::error::VocabularyError;
use crate::vocabulary::Vocabulary;

impl Vocabulary {
    /// Reads a token map such as `{"a": 0, "b": 1, "<unk>": 2}`. If all tokens but special ones (`<eos>`, `[PAD]`) are
    /// single characters, it is a character vocabulary, otherwise one of white-space separated words as in
    /// [`Vocabulary::from_word_list`].
    ///
    /// # Errors
    /// Anything but one JSON object of tokens with whole ids from 0 without gap or duplicate; tokens that are pieces
    /// of words, since their tokenizer can't be guessed from them.
    pub fn from_token_map(json: &[u8]) -> Result<Self, VocabularyError> {
        let mut reader = Deserializer::from_slice(json);
        let entries = reader.deserialize_map(Entries).map_err(VocabularyError::Json)?;
        reader.end().map_err(VocabularyError::Json)?;
        let vocab = checked(entries)?;
        let characters = vocab.keys().all(|token| is_character(token) || is_special(token));
        if characters && vocab.keys().any(|token| is_character(token)) {
            return character_vocabulary(&vocab);
        }
        if let Some(example) = vocab.keys().find(|token| is_subword(token)) {
            return Err(VocabularyError::Subwords { example: example.clone() });
        }
        let no_word = |token: &str| token.is_empty() || token.contains(char::is_whitespace);
        if let Some((token, id)) = vocab.iter().find(|(token, _)| no_word(token)) {
            return Err(VocabularyError::BadToken { token: token.clone(), id: id.to_string() });
        }
        word_vocabulary(&vocab)
    }
}

/// Reads the entries in order, with duplicate keys, which a map would swallow.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one object that maps tokens to ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn checked(entries: Vec<(String, Value)>) -> Result<Map<String, Value>, VocabularyError> {
    let mut vocab = Map::new();
    for (token, id) in entries {
        if id.as_u64().is_none_or(|id| id >= u64::from(u32::MAX)) {
            return Err(VocabularyError::BadId { token, id: id.to_string() });
        }
        if vocab.contains_key(&token) {
            return Err(VocabularyError::DuplicateToken { token });
        }
        vocab.insert(token, id);
    }
    Ok(vocab)
}

fn is_character(token: &str) -> bool {
    token.chars().count() == 1
}

fn is_special(token: &str) -> bool {
    let wrapped = |open: char, close: char| token.starts_with(open) && token.ends_with(close);
    token.len() > 2 && (wrapped('<', '>') || wrapped('[', ']'))
}

/// The marks of GPT-2's, BERT's and SentencePiece's pieces.
fn is_subword(token: &str) -> bool {
    let mark = |mark: &str| token.starts_with(mark) && token.chars().count() > mark.chars().count();
    mark("Ġ") || mark("##") || mark("▁")
}
