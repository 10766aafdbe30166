//! The tokens that are in a text, where that makes a difference for the next one.
//!
//! Knows nothing about what difference it makes.

use std::sync::Arc;

use crate::request::Generation;

/// Which tokens are in a text. Clones share them until one grows.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// Ascending, each once; none where nobody wants to know.
    tokens: Option<Arc<Vec<u32>>>,
}

impl Seen {
    /// Those of the prompt.
    pub(super) fn new(generation: &Generation) -> Self {
        if generation.adjusting.repetition_penalty == 1.0 {
            return Self::default();
        }
        let mut tokens = generation.prompt.clone();
        tokens.sort_unstable();
        tokens.dedup();
        Self { tokens: Some(Arc::new(tokens)) }
    }

    /// One more.
    pub(super) fn add(&mut self, token: u32) {
        if let Some(tokens) = &mut self.tokens
            && let Err(place) = tokens.binary_search(&token)
        {
            Arc::make_mut(tokens).insert(place, token);
        }
    }

    /// All of them; none where nobody wants to know.
    pub(super) fn as_slice(&self) -> &[u32] {
        self.tokens.as_deref().map_or(&[], Vec::as_slice)
    }
}
