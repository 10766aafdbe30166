//! [`Vocabulary`]: a tokenizer that was checked once and is shared by everybody. It knows nothing about how a text is
//! cut (see `encode`), how tokens become text (see `rendering`) or how vocabularies come to be (see `build`).

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;

use crate::document;
use crate::encode::{self, Cut};
use crate::error::{EncodeError, VocabularyError};
use crate::rendering::Rendering;
use crate::stream::TextStream;

/// The tokens of a model, and the way from text to them and back.
///
/// Cloning is cheap: all clones share one tokenizer. Ids are `0..len()` without a gap.
///
/// ```
/// let vocabulary = chorus_text::Vocabulary::train_characters("to be")?;
/// let ids = vocabulary.encode("bet")?;
/// assert_eq!(vocabulary.decode(&ids), "bet");
/// assert!(vocabulary.encode("bat").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Vocabulary {
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    /// The token of every id.
    tokens: Vec<String>,
    json: String,
    fingerprint: String,
    unknown: Option<u32>,
    cut: Cut,
    rendering: Rendering,
}

impl Vocabulary {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// What belongs to training or batching is dropped: truncation, padding and BPE dropout.
    ///
    /// # Errors
    /// Bytes that are not JSON or no tokenizer, no tokens, ids that are not `0..n` without gap or duplicate, merges
    /// that don't fit the vocabulary, a decoder that can't write one of the tokens.
    pub fn from_json(json: &[u8]) -> Result<Self, VocabularyError> {
        let mut tokenizer = document::read(json)?;
        document::forget_training(&mut tokenizer)?;
        let tokens = document::tokens_by_id(&tokenizer)?;
        let json = tokenizer.to_string(true).map_err(VocabularyError::NotATokenizer)?;
        let value = serde_json::from_str(&json).map_err(VocabularyError::Json)?;
        let unknown = document::unknown_token(&value).and_then(|token| tokenizer.token_to_id(&token));
        let rendering = Rendering::of(&value, &tokens);
        if matches!(rendering, Rendering::Other) {
            document::check_decoder(&tokenizer, tokens.len())?;
        }
        let cut = Cut::of(&value);
        let canonical = tokenizer.to_string(false).map_err(VocabularyError::NotATokenizer)?;
        let fingerprint = fingerprint(canonical.as_bytes());
        let shared = Shared { tokenizer, tokens, json, fingerprint, unknown, cut, rendering };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The vocabulary as a `tokenizer.json` that every Hugging Face library reads.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.shared.json
    }

    /// How many tokens there are: the largest id plus one, the V of a model's shapes. Never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary is never empty")]
    pub fn len(&self) -> u32 {
        // Ids are u32 and without gaps, so their number fits.
        u32::try_from(self.shared.tokens.len()).unwrap_or(u32::MAX)
    }

    /// `sha256:` and the hash of the tokenizer's canonical serialisation: equal for equal tokenizers, whatever the
    /// white space or the order of the keys in their files.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.shared.fingerprint
    }

    /// Whether there is a token for what the vocabulary does not know, so that such text is no error.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.shared.unknown.is_some()
    }

    /// The token with this id, as written in the vocabulary (byte-level tokens in their printable form).
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.shared.tokens.get(id as usize).cloned()
    }

    /// The id of the token that is written so in the vocabulary.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.shared.tokenizer.token_to_id(token)
    }

    /// The ids of a text, without any special token that the text does not contain. An empty text has none.
    ///
    /// # Errors
    /// The first character or word that the vocabulary can't express, unless it has a token for the unknown.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        encode::encode(&self.shared.tokenizer, self.shared.cut, text)
    }

    /// The text of a sequence of ids. Ids outside the vocabulary add nothing; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.decoder();
        let mut text: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
        text.extend(stream.flush());
        text
    }

    /// A decoder for tokens that come one by one. What it gives, put together, is [`Vocabulary::decode`] of them all.
    #[must_use]
    pub fn decoder(&self) -> TextStream {
        TextStream::new(self.clone())
    }

    /// A decoder whose text continues that of `before`: a generation reads on where its prompt ended.
    #[must_use]
    pub fn decoder_after(&self, before: &[u32]) -> TextStream {
        let mut stream = self.decoder();
        for id in before {
            stream.push(*id);
        }
        stream
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    pub(crate) fn rendering(&self) -> &Rendering {
        &self.shared.rendering
    }

    /// Whether tokens are whole words, so that what is missing is a word and not a character.
    #[must_use]
    pub fn is_word_level(&self) -> bool {
        matches!(self.shared.tokenizer.get_model(), ModelWrapper::WordLevel(_))
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Vocabulary")
            .field("len", &self.len())
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Vocabulary {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for Vocabulary {}

fn fingerprint(canonical: &[u8]) -> String {
    let digest = Sha256::digest(canonical);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
