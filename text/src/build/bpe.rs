//! Byte-level BPE as GPT-2 has it, trained on a text: all 256 bytes are tokens, so every text is expressible.

use std::collections::HashSet;

use tokenizers::Tokenizer;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::encode::Cut;
use crate::error::VocabularyError;
use crate::vocabulary::Vocabulary;

/// The number of bytes, each a token.
const BYTES: usize = 256;

impl Vocabulary {
    /// Byte-level BPE with at most `size` tokens: the 256 bytes and the merges that the text gives, fewer if the text
    /// has no more pairs. No space is put before the text. The same text gives the same tokenizer.
    ///
    /// # Errors
    /// [`VocabularyError::TooSmall`] for a size below 256.
    pub fn train_bpe(text: &str, size: usize) -> Result<Self, VocabularyError> {
        if size < BYTES {
            return Err(VocabularyError::TooSmall { size, least: BYTES });
        }
        let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        let trainer = BpeTrainer::builder().vocab_size(size).show_progress(false).initial_alphabet(alphabet);
        let byte_level = ByteLevel::new(false, true, true);
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        let mut trainer = TrainerWrapper::from(trainer.build());
        tokenizer.train(&mut trainer, chunks(text)).map_err(VocabularyError::Training)?;
        let json = tokenizer.to_string(false).map_err(VocabularyError::Training)?;
        Self::from_json(json.as_bytes())
    }
}

/// The text in pieces that the pattern would take apart anyway, so that training works on many at once.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (chunk, behind) = rest.split_at_checked(Cut::BeforeWord.first_chunk(rest))?;
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}
