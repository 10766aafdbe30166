//! [`TextStream`]: tokens in, text out, one by one. It knows nothing about where the tokens come from.

use std::fmt;

use crate::document;
use crate::rendering::Rendering;
use crate::vocabulary::Vocabulary;

/// At most so many tokens wait for the rest of a character where the library decodes.
const LONGEST_WAIT: usize = 16;

/// Decodes tokens as they come. Text is given out as soon as no later token can change it, so a character that is
/// spread over byte-level tokens comes out whole, and the pieces put together are the decoding of the whole.
///
/// ```
/// let vocabulary = chorus_text::Vocabulary::train_bpe("", 256)?;
/// let mut stream = vocabulary.decoder();
/// let pieces: Vec<Option<String>> = vocabulary.encode("é!")?.iter().map(|id| stream.push(*id)).collect();
/// assert_eq!(pieces, [None, Some("é".to_owned()), Some("!".to_owned())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TextStream {
    vocabulary: Vocabulary,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    /// Whether the next word needs a space before it.
    after_word: bool,
    /// The tokens that the library needs to see again, and how many of them are given out.
    window: Vec<u32>,
    given: usize,
}

impl TextStream {
    pub(crate) fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, pending: Vec::new(), after_word: false, window: Vec::new(), given: 0 }
    }

    /// Takes the next token and gives the text that is now certain, never an empty one. An id outside the
    /// vocabulary adds nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let vocabulary = self.vocabulary.clone();
        let index = id as usize;
        match vocabulary.rendering() {
            Rendering::Concatenated(tokens) => tokens.get(index).cloned().filter(|text| !text.is_empty()),
            Rendering::Bytes(tokens) => tokens.get(index).and_then(|bytes| self.push_bytes(bytes)),
            Rendering::Words { words, line_end } => {
                words.get(index).map(|word| self.push_word(word, *line_end == Some(id)))
            }
            Rendering::Other => self.push_other(id),
        }
    }

    /// Ends the sequence: what was held back comes out, an incomplete character as U+FFFD.
    pub fn flush(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if self.given < self.window.len() {
            text.push_str(&self.fresh_text());
        }
        self.window.clear();
        self.given = 0;
        self.after_word = false;
        (!text.is_empty()).then_some(text)
    }

    fn push_word(&mut self, word: &str, line_end: bool) -> String {
        let space = self.after_word && !line_end;
        self.after_word = !line_end;
        match (line_end, space) {
            (true, _) => "\n".to_owned(),
            (false, true) => format!(" {word}"),
            (false, false) => word.to_owned(),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Option<String> {
        self.pending.extend_from_slice(bytes);
        let complete = self.pending.len() - incomplete_tail(&self.pending);
        let rest = self.pending.split_off(complete);
        let bytes = std::mem::replace(&mut self.pending, rest);
        // Invalid bytes become U+FFFD as they would in the whole text: only a tail that may yet become a character
        // is held back, and the replacement never looks across a character's end.
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Decodes the last tokens with and without the new one; the difference is the new text. A few tokens of context
    /// stay in the window because decoders treat the first token of a text differently.
    fn push_other(&mut self, id: u32) -> Option<String> {
        self.window.push(id);
        let text = self.fresh_text();
        let waiting = self.window.len() - self.given;
        let uncertain = text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER);
        if uncertain && waiting < LONGEST_WAIT {
            return None;
        }
        self.window.drain(..self.given);
        self.given = self.window.len();
        (!text.is_empty()).then_some(text)
    }

    fn fresh_text(&self) -> String {
        let decode = |ids: &[u32]| document::decode(self.vocabulary.tokenizer(), ids).unwrap_or_default();
        let whole = decode(&self.window);
        // Some decoders take it ill when there is nothing to decode.
        let before =
            self.window.get(..self.given).filter(|given| !given.is_empty()).map(decode).unwrap_or_default();
        let common = whole.char_indices().zip(before.chars()).take_while(|((_, a), b)| a == b);
        let common: usize = common.map(|((_, character), _)| character.len_utf8()).sum();
        whole.get(common..).unwrap_or_default().to_owned()
    }
}

impl fmt::Debug for TextStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TextStream").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// How many bytes at the end are the beginning of a character that later bytes may complete.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let invalid = last.map_or(&[][..], |chunk| chunk.invalid());
    let valid_so_far = std::str::from_utf8(invalid).err().is_some_and(|error| error.error_len().is_none());
    if valid_so_far { invalid.len() } else { 0 }
}
