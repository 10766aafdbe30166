//! What goes into one inference call and comes out of it, row by row. Knows nothing about how a call is computed.

use std::sync::Arc;

/// One sequence's LSTM state: h and c of every layer, `[layers, 2, hidden_size]`. A clone is cheap and independent.
///
/// The top layer's h is among them, so every state has a next-token distribution, a fresh one too.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) values: Arc<[f32]>,
}

/// One sequence's part of a [`crate::LanguageModel::forward`].
#[derive(Debug)]
pub struct Row<'a> {
    /// Replaced by the state after the tokens.
    pub state: &'a mut State,
    /// What is fed, in order; may be empty.
    pub tokens: &'a [u32],
    /// Which logits come back.
    pub want: Want,
}

/// Which logits a row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// None: the sequence only advances, and the output layer is not run for it.
    Nothing,
    /// One row: after the last token (with no tokens, of the state as it is).
    Next,
    /// One row for each token: before it was fed, i.e. of the distribution that it was drawn from.
    Each,
}

/// What a row asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Logits `[rows, vocab_size]`, row-major.
    pub logits: Vec<f32>,
}

impl State {
    /// The numbers, `[layers, 2, hidden_size]`: what a snapshot holds. [`crate::LanguageModel::restore`] takes them back.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
