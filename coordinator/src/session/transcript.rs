//! The tokens of one ensemble session so far, shared with those who catch up in the background.
//!
//! Knows nothing about members.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All tokens of a session, in order. Grows, never shrinks.
#[derive(Debug, Clone)]
pub(crate) struct Transcript(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The fingerprint of the vocabulary that the tokens are of.
    vocabulary: String,
    tokens: Mutex<Vec<u32>>,
}

impl Transcript {
    pub(crate) fn new(vocabulary: &str) -> Self {
        Self(Arc::new(Shared { vocabulary: vocabulary.to_owned(), tokens: Mutex::default() }))
    }

    /// One that begins with the same tokens, and grows by itself.
    pub(crate) fn fork(&self) -> Self {
        let (vocabulary, tokens) = (self.0.vocabulary.clone(), Mutex::new(self.tokens().clone()));
        Self(Arc::new(Shared { vocabulary, tokens }))
    }

    pub(crate) fn vocabulary(&self) -> &str {
        &self.0.vocabulary
    }

    /// Appends tokens and gives the new length.
    pub(crate) fn extend(&self, tokens: &[u32]) -> usize {
        let mut all = self.tokens();
        all.extend_from_slice(tokens);
        all.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens().len()
    }

    /// A copy of a part; what lies outside is left out.
    pub(crate) fn part(&self, range: Range<usize>) -> Vec<u32> {
        let all = self.tokens();
        let end = range.end.min(all.len());
        all.get(range.start.min(end)..end).unwrap_or_default().to_vec()
    }

    fn tokens(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
