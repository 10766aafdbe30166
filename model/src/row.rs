//! What goes into one inference call and comes out of it, row by row. Knows nothing about how a call is computed.

use chorus_simd::Norm;

/// One sequence's LSTM state: h and c of every layer, `[layers, 2, hidden_size]`. A clone is independent.
///
/// The top layer's h is among them, so every state has a next-token distribution, a fresh one too.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) values: Box<[f32]>,
}

/// One sequence's part of a [`crate::LanguageModel::predict`].
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

/// One distribution that a row asked for, lent to whoever reduces it to what is needed.
#[derive(Debug, Clone, Copy)]
pub struct Prediction<'a> {
    /// Which row of the call.
    pub row: usize,
    /// Which of the row's distributions, from 0.
    pub offset: usize,
    /// `[vocab_size]`.
    pub logits: &'a [f32],
    /// Their log-sum-exp; not finite where a logit is not.
    pub norm: Norm,
}

/// What a row asked for, kept.
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
