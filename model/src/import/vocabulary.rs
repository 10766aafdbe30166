//! The vocabulary that comes with somebody's weights, and which of its tokens begin and end a text. Knows nothing
//! about weights.

use std::path::Path;

use chorus_text::{Vocabulary, VocabularyError};

use super::error::ImportError;
use super::{EndChoice, StartChoice};
use crate::config::Start;

/// More than any vocabulary, in bytes.
const LARGEST_VOCABULARY: u64 = 1 << 28;
/// Tokens that stand at a text's beginning.
const START_TOKENS: [&str; 7] = ["<bos>", "<s>", "[BOS]", "<|endoftext|>", "<BOS>", "<sos>", "<start>"];
/// Tokens that stand at a text's end.
const END_TOKENS: [&str; 6] = ["</s>", "[EOS]", "<|endoftext|>", "<eos>", "<EOS>", "<end>"];
/// In word lists this ends a line; a text goes on behind it.
const LINE_END: &str = "<eos>";

/// Reads a `vocab.txt`, a `vocab.json` map or a `tokenizer.json`.
pub(super) fn read(path: &Path) -> Result<Vocabulary, ImportError> {
    let bytes = super::file::read(path, LARGEST_VOCABULARY)?;
    let json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let txt = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    let vocabulary = match (txt, json) {
        (true, _) | (false, false) => word_list(path, &bytes)?,
        (false, true) if is_tokenizer(&bytes) => Vocabulary::from_json(&bytes),
        (false, true) => Vocabulary::from_token_map(&bytes),
    };
    vocabulary.map_err(|source| ImportError::Vocabulary { path: path.to_owned(), source })
}

/// What the first token is conditioned on: what was asked for, or what the vocabulary suggests.
pub(super) fn start(vocabulary: &Vocabulary, choice: &StartChoice) -> Result<Start, ImportError> {
    match choice {
        StartChoice::ZeroState => Ok(Start::ZeroState),
        StartChoice::Token(token) => known(vocabulary, "start", token).map(Start::Token),
        StartChoice::Suggested => {
            let line_end = vocabulary.is_word_level().then_some(LINE_END);
            let token = START_TOKENS.into_iter().chain(line_end).find_map(|token| vocabulary.id_of(token));
            Ok(token.map_or(Start::ZeroState, Start::Token))
        }
    }
}

/// Which token ends a generation: what was asked for, or what the vocabulary suggests.
pub(super) fn end(vocabulary: &Vocabulary, choice: &EndChoice) -> Result<Option<u32>, ImportError> {
    match choice {
        EndChoice::None => Ok(None),
        EndChoice::Token(token) => known(vocabulary, "end", token).map(Some),
        EndChoice::Suggested => {
            let is_line_end = |token: &&str| vocabulary.is_word_level() && *token == LINE_END;
            Ok(END_TOKENS
                .into_iter()
                .filter(|token| !is_line_end(token))
                .find_map(|token| vocabulary.id_of(token)))
        }
    }
}

fn known(vocabulary: &Vocabulary, role: &'static str, token: &str) -> Result<u32, ImportError> {
    vocabulary.id_of(token).ok_or_else(|| ImportError::UnknownToken { role, token: token.to_owned() })
}

fn word_list(path: &Path, bytes: &[u8]) -> Result<Result<Vocabulary, VocabularyError>, ImportError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ImportError::Read {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })?;
    // `lines` takes the line ends of every system; the last one opens no further line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(Vocabulary::from_word_list(text.lines().map(str::to_owned).collect()))
}

/// A tokenizer has a model in it; in a token map `"model"` could be a token, but then it is a number.
fn is_tokenizer(json: &[u8]) -> bool {
    let document: Option<serde_json::Value> = serde_json::from_slice(json).ok();
    document.is_some_and(|document| document.get("model").is_some_and(serde_json::Value::is_object))
}
