//! From text to ids, with a check that the library lacks: it drops characters silently that a BPE model without an
//! unknown token does not know. A text is cut where that provably changes nothing, so that long ones stay fast.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::{
    Model, NormalizedString, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token,
    Tokenizer,
};

use crate::error::{Cause, EncodeError};

/// Where a text may be cut so that the ids of the pieces, put together, are the ids of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nowhere that is known.
    Nowhere,
    /// Behind any character: every character is a token of its own.
    AfterAnyCharacter,
    /// Behind a line end: words never reach across white space.
    AfterLine,
    /// Before a space or line end that a visible character follows: GPT-2's pattern begins a piece there, whatever
    /// stands before, because it leaves the last white space of a run to what follows.
    BeforeWord,
}

/// Chunks are no shorter than this many bytes, if the text is not.
const CHUNK: usize = 32 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("a piece of the text has no token")]
struct Uncovered;

#[derive(Debug, thiserror::Error)]
#[error("the tokenizers library panicked")]
struct Panicked;

impl Cut {
    /// Reads off a serialised tokenizer where it may be cut.
    pub(crate) fn of(document: &Value) -> Self {
        let part = |name: &str| document.get(name).filter(|value| !value.is_null());
        let added = part("added_tokens").and_then(Value::as_array).is_some_and(|added| !added.is_empty());
        if added {
            return Self::Nowhere;
        }
        let kind = |name: &str| part(name).and_then(|value| value.get("type")).and_then(Value::as_str);
        let model = |name: &str| document.get("model").and_then(|model| model.get(name));
        let plain = ["continuing_subword_prefix", "end_of_word_suffix"]
            .iter()
            .all(|name| model(name).and_then(Value::as_str).is_none_or(str::is_empty));
        match (kind("model"), part("normalizer"), kind("pre_tokenizer")) {
            (Some("BPE"), None, None) if plain && merges_nothing(document) => Self::AfterAnyCharacter,
            (Some("BPE"), None, Some("ByteLevel")) if gpt2_pattern(document) => Self::BeforeWord,
            (Some("WordLevel"), normalizer, Some("WhitespaceSplit"))
                if normalizer.is_none_or(|normalizer| *normalizer == crate::build::line_end_normalizer()) =>
            {
                Self::AfterLine
            }
            _ => Self::Nowhere,
        }
    }

    /// The length of the first chunk of a text: all of it, or a cut behind `CHUNK` bytes or more.
    pub(crate) fn first_chunk(self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let is = |at: usize, class: fn(&u8) -> bool| bytes.get(at).is_some_and(class);
        let from = CHUNK.min(bytes.len());
        let cut = match self {
            Self::Nowhere => None,
            Self::AfterAnyCharacter => (from..bytes.len()).find(|at| text.is_char_boundary(*at)),
            Self::AfterLine => (from..bytes.len()).find(|at| is(at - 1, |byte| *byte == b'\n')),
            Self::BeforeWord => (from..bytes.len())
                .find(|at| is(*at, |byte| matches!(byte, b' ' | b'\n')) && is(at + 1, u8::is_ascii_graphic)),
        };
        cut.unwrap_or(bytes.len())
    }
}

fn merges_nothing(document: &Value) -> bool {
    let model = document.get("model");
    let flag = |name: &str| model.and_then(|model| model.get(name)).and_then(Value::as_bool).unwrap_or(false);
    let merges = model.and_then(|model| model.get("merges")).and_then(Value::as_array);
    merges.is_some_and(Vec::is_empty) && !flag("fuse_unk") && !flag("ignore_merges")
}

fn gpt2_pattern(document: &Value) -> bool {
    let flag =
        |name: &str| document.get("pre_tokenizer").and_then(|part| part.get(name)).and_then(Value::as_bool);
    flag("add_prefix_space") == Some(false) && flag("use_regex") == Some(true)
}

/// The ids of `text`, or the first thing in it that has none.
pub(crate) fn encode(tokenizer: &Tokenizer, cut: Cut, text: &str) -> Result<Vec<u32>, EncodeError> {
    let mut ids = Vec::with_capacity(text.len() / 3);
    let mut start = 0;
    while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
        let end = start + cut.first_chunk(rest);
        let chunk = text.get(start..end).unwrap_or(rest);
        let pieces = pieces(tokenizer, chunk);
        match pieces {
            Ok(pieces) => ids.extend(
                pieces
                    .get_splits(OffsetReferential::Original, OffsetType::None)
                    .into_iter()
                    .flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id)),
            ),
            Err(cause) => return Err(locate(tokenizer, text, start, chunk, cause)),
        }
        start = end;
    }
    Ok(ids)
}

/// The library's pipeline up to the tokens, every piece of the text checked to be covered by them.
fn pieces(tokenizer: &Tokenizer, chunk: &str) -> Result<PreTokenizedString, Cause> {
    let run = || {
        let mut pieces = split(tokenizer, chunk)?;
        pieces.tokenize(|piece| tokenize(tokenizer, piece))?;
        Ok(pieces)
    };
    // Some normalizers index tables that come with the tokenizer, unchecked.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Panicked.into()))
}

fn split(tokenizer: &Tokenizer, chunk: &str) -> Result<PreTokenizedString, Cause> {
    let mut pieces =
        tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), chunk);
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    Ok(pieces)
}

fn tokenize(tokenizer: &Tokenizer, piece: &NormalizedString) -> Result<Vec<Token>, Cause> {
    let tokens = tokenizer.get_model().tokenize(piece.get())?;
    // The offsets run on from token to token: what was dropped is missing at the end.
    let covered = tokens.last().map_or(0, |token| token.offsets.1);
    if covered < piece.len() { Err(Uncovered.into()) } else { Ok(tokens) }
}

/// Finds the first character or word of the chunk that can't be encoded. Only errors pay for this.
fn locate(tokenizer: &Tokenizer, text: &str, start: usize, chunk: &str, cause: Cause) -> EncodeError {
    let Ok(split) = split(tokenizer, chunk) else {
        return EncodeError::Tokenizer(cause);
    };
    let position = |offset: usize| text.get(..start + offset).unwrap_or_default().chars().count();
    for (piece, (from, to), tokens) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        if tokens.is_some() || tokenize(tokenizer, &piece.into()).is_ok() {
            continue;
        }
        let original = chunk.get(from..to).unwrap_or_default();
        if matches!(tokenizer.get_model(), ModelWrapper::WordLevel(_)) && original.chars().count() > 1 {
            return EncodeError::Word { word: original.to_owned(), position: position(from) };
        }
        let mut characters = original.char_indices();
        let unknown =
            characters.find(|(_, character)| pieces(tokenizer, character.encode_utf8(&mut [0; 4])).is_err());
        if let Some((offset, character)) = unknown {
            return EncodeError::Character { character, position: position(from + offset) };
        }
    }
    EncodeError::Tokenizer(cause)
}
