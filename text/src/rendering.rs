//! How single tokens become text: the tokenizer's decoder, recognised where each token's share does not depend on
//! later tokens. Everything else goes through the library, see `stream`.

use serde_json::Value;

use crate::build;

/// What a token adds to the text.
#[derive(Debug)]
pub(crate) enum Rendering {
    /// Its characters, and nothing between tokens.
    Concatenated(Vec<String>),
    /// Its bytes: a character may be spread over several tokens.
    Bytes(Vec<Vec<u8>>),
    /// A word: one space between words, the line end token as a line end without spaces around it.
    Words {
        /// The words by id.
        words: Vec<String>,
        /// The id of the line end, if there is one.
        line_end: Option<u32>,
    },
    /// Whatever the tokenizer's decoder does.
    Other,
}

impl Rendering {
    /// Reads the rendering off a serialised tokenizer.
    pub(crate) fn of(document: &Value, tokens: &[String]) -> Self {
        let decoder = document.get("decoder").unwrap_or(&Value::Null);
        match decoder.get("type").and_then(Value::as_str) {
            None if decoder.is_null() => Self::Words { words: tokens.to_vec(), line_end: None },
            Some("Fuse") => Self::Concatenated(tokens.to_vec()),
            Some("ByteLevel") => Self::Bytes(tokens.iter().map(|token| token_bytes(token)).collect()),
            Some("Sequence") if *decoder == build::word_decoder() => {
                let line_end = tokens.iter().position(|token| token == build::LINE_END);
                let line_end = line_end.and_then(|id| u32::try_from(id).ok());
                Self::Words { words: tokens.to_vec(), line_end }
            }
            _ => Self::Other,
        }
    }
}

/// The bytes of a byte-level token, whose characters stand for one byte each; a token with any other character (an
/// added one) stands for itself.
fn token_bytes(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's `bytes_to_unicode`, backwards: printable Latin-1 characters are themselves, the other bytes are the
/// characters from U+0100 on, in order (github.com/openai/gpt-2, src/encoder.py).
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_byte_table_is_the_library_s() {
        let alphabet = ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.iter().filter_map(|character| byte_of(*character)).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('\u{144}'), None);
    }
}
