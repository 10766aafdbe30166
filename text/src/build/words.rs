//! One token for each white-space separated word, `<eos>` at each line's end, `<unk>` for words that are not in the
//! list, where it is in the list itself.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Parts, numbered, unknown_token};
use crate::error::VocabularyError;
use crate::vocabulary::Vocabulary;

/// The token that stands for a line's end.
pub(crate) const LINE_END: &str = "<eos>";

const UNKNOWN: &str = "<unk>";

impl Vocabulary {
    /// `<unk>`, `<eos>` and the most frequent white-space separated words of the text, at most `max_size` tokens; of
    /// equally frequent words the alphabetically first.
    ///
    /// # Errors
    /// [`VocabularyError::TooSmall`] for a `max_size` below 2.
    pub fn train_words(text: &str, max_size: usize) -> Result<Self, VocabularyError> {
        if max_size < 2 {
            return Err(VocabularyError::TooSmall { size: max_size, least: 2 });
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for word in text.split_whitespace().filter(|word| *word != UNKNOWN && *word != LINE_END) {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(&str, usize)> = counts.into_iter().collect();
        words.sort_unstable_by_key(|(word, count)| (Reverse(*count), *word));
        let frequent = words.into_iter().map(|(word, _)| word).take(max_size - 2);
        Self::from_word_list([UNKNOWN, LINE_END].into_iter().chain(frequent).map(str::to_owned).collect())
    }

    /// The words of a `vocab.txt`, one a line, the id its place in the list.
    ///
    /// A text is read as white-space separated words; each `\n` is `<eos>`, where the list has it; a word that is
    /// not in the list is `<unk>`, where the list has it, and an error otherwise. Decoding puts one space between
    /// words and writes `<eos>` as a line end.
    ///
    /// # Errors
    /// An empty list, a line that is empty or has white space in it, a word that stands there twice.
    pub fn from_word_list(words: Vec<String>) -> Result<Self, VocabularyError> {
        let bad = words.iter().position(|word| word.is_empty() || word.contains(char::is_whitespace));
        if let Some((index, word)) = bad.and_then(|index| words.get(index).map(|word| (index, word))) {
            return Err(VocabularyError::BadWord { line: index + 1, word: word.clone() });
        }
        word_vocabulary(&numbered(words)?)
    }
}

pub(super) fn word_vocabulary(vocab: &Map<String, Value>) -> Result<Vocabulary, VocabularyError> {
    let line_end = vocab.contains_key(LINE_END);
    let unknown = unknown_token(vocab).unwrap_or(UNKNOWN);
    let parts = Parts {
        normalizer: if line_end { line_end_normalizer() } else { Value::Null },
        pre_tokenizer: json!({"type": "WhitespaceSplit"}),
        decoder: if line_end { word_decoder() } else { Value::Null },
        model: json!({"type": "WordLevel", "vocab": vocab, "unk_token": unknown}),
    };
    parts.build()
}

/// Makes a word of every line end.
pub(crate) fn line_end_normalizer() -> Value {
    json!({"type": "Replace", "pattern": {"String": "\n"}, "content": format!(" {LINE_END} ")})
}

/// Joins words by spaces and turns the word for line ends back. The prefix of the first part marks tokens that want
/// no space before them; it is white space because no word begins with that.
pub(crate) fn word_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "WordPiece", "prefix": "\n", "cleanup": false},
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": format!(" ?{LINE_END} ?")}, "content": "\n"},
    ]})
}
