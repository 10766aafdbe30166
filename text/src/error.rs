//! What can be wrong with a vocabulary, and with a text that it is asked to encode. Every sentence is for people:
//! it names the token, line or character at fault. Causes are in `source()`.

/// The cause that the tokenizer library gives.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a vocabulary can't be read or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The bytes are not JSON.
    #[error("the vocabulary is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// The JSON is not a Hugging Face `tokenizer.json`.
    #[error("the JSON is not a Hugging Face tokenizer (tokenizer.json)")]
    NotATokenizer(#[source] Cause),
    /// The tokenizer library gave up on the document.
    #[error("the tokenizer is damaged: the tokenizers library can't build it")]
    Damaged,
    /// A decoder that can't write a token.
    #[error("the tokenizer is damaged: its decoder can't write token {token}")]
    Undecodable {
        /// The token's id.
        token: u32,
    },
    /// No token at all.
    #[error("the vocabulary is empty: it needs at least one token")]
    Empty,
    /// Two tokens with one id.
    #[error("the tokens {first:?} and {second:?} have the same id {id}: ids must be unique")]
    DuplicateId {
        /// The id that both have.
        id: u32,
        /// One of the tokens.
        first: String,
        /// The other one.
        second: String,
    },
    /// The ids are not 0, 1, 2, ... without a gap.
    #[error(
        "no token has the id {missing}, but the largest id is {largest}: ids must be 0, 1, 2, ... without a gap"
    )]
    MissingId {
        /// The smallest id that no token has.
        missing: u32,
        /// The largest id of the vocabulary.
        largest: u32,
    },
    /// One token twice in a map or a list.
    #[error("the token {token:?} stands in the vocabulary twice")]
    DuplicateToken {
        /// The token.
        token: String,
    },
    /// An id that is no id.
    #[error("the token {token:?} has the id {id}: an id is a whole number from 0 to {}", u32::MAX - 1)]
    BadId {
        /// The token.
        token: String,
        /// Its id, as written.
        id: String,
    },
    /// The document states another id for an added token than its model gives it.
    #[error(
        "the added token {token:?} is stated to have the id {stated}, but the vocabulary gives it {actual:?}"
    )]
    AddedTokenId {
        /// The added token.
        token: String,
        /// The id in `added_tokens`.
        stated: u64,
        /// The id in the built tokenizer.
        actual: Option<u32>,
    },
    /// A BPE merge whose parts or whole are not in the vocabulary.
    #[error("merge {index} ({left:?} + {right:?}) needs {missing:?}, which is not in the vocabulary")]
    BadMerge {
        /// Which merge, from 0.
        index: usize,
        /// The left part.
        left: String,
        /// The right part.
        right: String,
        /// What is missing.
        missing: String,
    },
    /// A word list's line that is no word.
    #[error("line {line} of the word list is {word:?}: every line must be one word without white space")]
    BadWord {
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// A token map's key that is no word.
    #[error(
        "the token map has the token {token:?} with the id {id}: in a token map of words every token must be one word \
         without white space"
    )]
    BadToken {
        /// The token.
        token: String,
        /// Its id, as written.
        id: String,
    },
    /// A token map that only makes sense together with the merges of its tokenizer.
    #[error(
        "the token map holds pieces of words such as {example:?}: it belongs to a subword tokenizer, give that \
         tokenizer's tokenizer.json instead"
    )]
    Subwords {
        /// One such piece.
        example: String,
    },
    /// A size that can't be had.
    #[error("a vocabulary of {size} tokens is too small: the least is {least}")]
    TooSmall {
        /// The size asked for.
        size: usize,
        /// The smallest possible one.
        least: usize,
    },
    /// The tokenizer library failed to train.
    #[error("the tokenizer can't be trained")]
    Training(#[source] Cause),
}

/// Why a text can't be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A character that no token expresses.
    #[error(
        "the vocabulary can't express the character {character:?} (U+{:04X}) at position {position} of the text \
         (counted in characters from 0)",
        u32::from(*.character)
    )]
    Character {
        /// The first such character.
        character: char,
        /// Where it stands, in characters from 0.
        position: usize,
    },
    /// A word that the vocabulary does not have, while it has no token for unknown words.
    #[error(
        "the vocabulary has neither the word {word:?} at position {position} of the text (counted in characters \
         from 0) nor a token for unknown words"
    )]
    Word {
        /// The first such word.
        word: String,
        /// Where it begins, in characters from 0.
        position: usize,
    },
    /// The tokenizer library failed.
    #[error("the tokenizer failed on the text")]
    Tokenizer(#[source] Cause),
}
