//! What goes into one inference call and comes out of it, row by row. Knows nothing about how a call is computed.

use std::num::NonZeroU64;

use chorus_simd::{Norm, Reduced};

/// One sequence's LSTM state: h and c of every layer, `[layers, 2, hidden_size]`. A clone is independent.
///
/// The top layer's h is among them, so every state has a next-token distribution, a fresh one too. On a device it stands in
/// the device's memory, and only its place is here: [`crate::LanguageModel::values`] has the numbers of both.
#[derive(Debug, Clone, PartialEq)]
pub struct State(pub(crate) Place);

/// Where a state stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// Here.
    Host(HostState),
    /// On a device.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    Slot(crate::gpu::Slot),
}

/// The numbers of a state, and where there is more about them.
#[derive(Debug, Clone)]
pub(crate) struct HostState {
    pub(crate) values: Box<[f32]>,
    /// Under which an engine has what the next step takes of these very numbers, or had it: copies of them share it.
    pub(crate) ticket: Ticket,
}

/// One in the process for each state after a call that is likely to be followed by another; none where that is not likely.
pub(crate) type Ticket = Option<NonZeroU64>;

impl PartialEq for HostState {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
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

/// What is known of one distribution that a row asked for, lent: its reduction, and no more.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Which row of the call.
    pub row: usize,
    /// Which of the row's distributions, from 0.
    pub offset: usize,
    /// The log-sum-exp of its logits; not finite where a logit is not, and then it is all that is known.
    pub norm: Norm,
    /// The logit of the row's token that was drawn from this distribution, where the row wants [`Want::Each`].
    pub target: Option<f32>,
    /// By the row's reduction.
    pub found: Reduced<'a>,
}

/// What a row asked for, kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Logits `[rows, vocab_size]`, row-major.
    pub logits: Vec<f32>,
}

impl State {
    pub(crate) fn on_host(values: impl Into<Box<[f32]>>) -> Self {
        Self(Place::Host(HostState { values: values.into(), ticket: None }))
    }

    /// The numbers, of a state that stands here; else none.
    pub(crate) fn values(&self) -> &[f32] {
        match &self.0 {
            Place::Host(state) => &state.values,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Place::Slot(_) => &[],
        }
    }

    /// What else is known of them.
    pub(crate) fn ticket(&self) -> Ticket {
        match &self.0 {
            Place::Host(state) => state.ticket,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Place::Slot(_) => None,
        }
    }

    /// To write other numbers, of which nothing else is known.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Place::Host(state) => {
                state.ticket = None;
                &mut state.values
            }
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Place::Slot(_) => &mut [],
        }
    }

    /// The ticket of the numbers as they are.
    pub(crate) fn mark(&mut self, new: Ticket) {
        match &mut self.0 {
            Place::Host(state) => state.ticket = new,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Place::Slot(_) => {}
        }
    }
}
