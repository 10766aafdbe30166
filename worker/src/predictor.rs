//! What the engine needs of a model: states, and a forward over rows of many sessions. Knows nothing about LSTMs.

use std::error::Error;

/// Why a model could not compute.
pub(crate) type PredictorError = Box<dyn Error + Send + Sync>;

/// Anything with a next-token distribution at every position of a sequence.
pub(crate) trait Predictor {
    /// What a session remembers of its tokens.
    type State;

    /// Values in a row of logits.
    fn vocabulary_size(&self) -> usize;

    /// The state of a sequence without tokens; it has a next-token distribution too.
    fn fresh_state(&mut self) -> Result<Self::State, PredictorError>;

    /// Feeds every row's tokens to its state and answers, in the rows' order, with the logits that each row wants:
    /// `rows * vocabulary_size` values, row after row. After an error the states are undefined.
    fn forward(&mut self, rows: &mut [Row<'_, Self::State>]) -> Result<Vec<Vec<f32>>, PredictorError>;
}

/// One session's part of a forward.
#[derive(Debug)]
pub(crate) struct Row<'a, S> {
    pub(crate) state: &'a mut S,
    /// May be empty: then the state stays as it is.
    pub(crate) tokens: &'a [u32],
    pub(crate) want: Want,
}

/// The logits that a [`Row`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// None.
    Nothing,
    /// One row: what follows the last token.
    Next,
    /// One row for each token: the distribution before it.
    Each,
}

impl Want {
    /// Rows of logits for a number of tokens.
    pub(crate) fn rows(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Next => 1,
            Self::Each => tokens,
        }
    }
}
