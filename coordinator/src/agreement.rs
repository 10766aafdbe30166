//! [`VocabularyAgreement`]: the one vocabulary of an ensemble. The first member that is reached defines it.
//!
//! Knows nothing about how a member's card or tokenizer arrive.

use std::sync::OnceLock;

use chorus_proto::v1::ModelCard;
use chorus_text::{Vocabulary, VocabularyError};

/// What the members of one ensemble must have in common.
#[derive(Debug, Default)]
pub(crate) struct VocabularyAgreement {
    vocabulary: OnceLock<Vocabulary>,
}

/// Why a worker can't be a member of this ensemble.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disagreement {
    /// Its tokenizer can't be read.
    #[error("its tokenizer can't be used: {0}")]
    Tokenizer(VocabularyError),
    /// It speaks of other tokens.
    #[error("it has another vocabulary ({theirs}) than the ensemble ({ours})")]
    Fingerprint {
        /// The worker's fingerprint.
        theirs: String,
        /// The ensemble's.
        ours: String,
    },
    /// Its model does not fit its tokenizer.
    #[error("its model has {model} tokens, but the vocabulary {vocabulary}")]
    Size {
        /// Tokens of the model, by its card.
        model: u32,
        /// Tokens of the vocabulary.
        vocabulary: u32,
    },
    /// A card that names a token which does not exist.
    #[error("its end token {token} is not in the vocabulary of {vocabulary} tokens")]
    EndToken {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocabulary: u32,
    },
    /// The reading of the tokenizer failed inside this process.
    #[error("its tokenizer could not be read")]
    Interrupted,
}

impl VocabularyAgreement {
    /// The vocabulary, once it is known.
    pub(crate) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.get()
    }

    /// Makes the vocabulary in `tokenizer_json` the ensemble's, unless there is one already. `card` is that of the
    /// worker that sent it.
    ///
    /// # Errors
    /// The bytes are no tokenizer, or the worker's card disagrees with its own tokenizer.
    pub(crate) async fn propose(
        &self,
        tokenizer_json: Vec<u8>,
        card: &ModelCard,
    ) -> Result<(), Disagreement> {
        // Tens of megabytes of JSON would hold up everything else on this thread.
        let vocabulary = tokio::task::spawn_blocking(move || Vocabulary::from_json(&tokenizer_json))
            .await
            .map_err(|_| Disagreement::Interrupted)?
            .map_err(Disagreement::Tokenizer)?;
        agree(card, &vocabulary)?;
        // Losing the race is no error: the check of the card tells whether the two agree.
        let _ = self.vocabulary.set(vocabulary);
        Ok(())
    }

    /// Whether a worker with this card speaks the ensemble's vocabulary; anything does while there is none.
    ///
    /// # Errors
    /// What does not agree.
    pub(crate) fn check(&self, card: &ModelCard) -> Result<(), Disagreement> {
        self.vocabulary().map_or(Ok(()), |vocabulary| agree(card, vocabulary))
    }
}

fn agree(card: &ModelCard, vocabulary: &Vocabulary) -> Result<(), Disagreement> {
    if card.vocabulary_fingerprint != vocabulary.fingerprint() {
        return Err(Disagreement::Fingerprint {
            theirs: card.vocabulary_fingerprint.clone(),
            ours: vocabulary.fingerprint().to_owned(),
        });
    }
    if card.vocabulary_size != vocabulary.len() {
        return Err(Disagreement::Size { model: card.vocabulary_size, vocabulary: vocabulary.len() });
    }
    match card.end_token.filter(|token| *token >= vocabulary.len()) {
        Some(token) => Err(Disagreement::EndToken { token, vocabulary: vocabulary.len() }),
        None => Ok(()),
    }
}
