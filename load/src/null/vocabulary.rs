//! A vocabulary of any size, without a text to learn it from. Knows nothing about who speaks it.

use chorus_text::{Vocabulary, VocabularyError};

/// A vocabulary of words with exactly this many tokens, as of a word-level model: `<unk>`, `<eos>`, then `w2`, `w3`, ...
/// Every text is expressible in it, since there is a token for the unknown.
///
/// ```
/// let vocabulary = chorus_load::null::synthetic_vocabulary(100)?;
/// assert_eq!(vocabulary.len(), 100);
/// assert_eq!(vocabulary.encode("w7 w99 else")?, [7, 99, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A size of 0.
pub fn synthetic_vocabulary(size: u32) -> Result<Vocabulary, VocabularyError> {
    let special = ["<unk>", "<eos>"].map(str::to_owned);
    let words = special.into_iter().chain((2..).map(|id| format!("w{id}")));
    Vocabulary::from_word_list(words.take(size as usize).collect())
}
