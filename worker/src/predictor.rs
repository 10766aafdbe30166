//! What the engine needs of a model: states, and a forward over rows of many sessions. Knows nothing about LSTMs.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use chorus_proto::v1::Failure;
#[cfg(test)]
use chorus_simd::Room;
use chorus_simd::{Norm, Reduced, Reduction};

use crate::failure;

/// Why a model could not compute.
pub(crate) type PredictorError = Box<dyn Error + Send + Sync>;

/// A state, or why bytes are none of this model.
pub(crate) type Restored<S> = Result<S, PredictorError>;

/// Anything with a next-token distribution at every position of a sequence.
pub(crate) trait Predictor {
    /// What a session remembers of its tokens.
    type State;

    /// Values in a row of logits.
    fn vocabulary_size(&self) -> usize;

    /// The state of a sequence without tokens; it has a next-token distribution too.
    fn fresh_state(&mut self) -> Result<Self::State, PredictorError>;

    /// A state as bytes, of which [`Predictor::restore`] makes the same one, to the bit.
    ///
    /// # Errors
    /// The device can't be read.
    fn snapshot(&self, state: &Self::State) -> Result<Bytes, PredictorError>;

    /// The state that these bytes are a snapshot of, or what is wrong with them.
    ///
    /// # Errors
    /// The device can't hold it.
    fn restore(&mut self, snapshot: &[u8]) -> Result<Restored<Self::State>, PredictorError>;

    /// A second state like this one, to the bit.
    fn fork(&mut self, state: &Self::State) -> Result<Self::State, PredictorError> {
        let snapshot = self.snapshot(state)?;
        self.restore(&snapshot)?
    }

    /// Feeds every row's tokens to its state, and calls `receive` once for each distribution that a row wants, in order
    /// for each row; between rows any order will do. After an error the states are undefined.
    fn forward(
        &mut self,
        rows: &mut [Row<'_, Self::State>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError>;

    /// As [`Predictor::forward`], of next tokens behind which nothing waits here: all that everybody waits for, so that
    /// processors which have nothing else to do may help.
    fn forward_with_help(
        &mut self,
        rows: &mut [Row<'_, Self::State>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        self.forward(rows, receive)
    }

    /// Whether there is something in the next forward that can be computed before it is known what is fed.
    fn has_early_work(&self) -> bool {
        false
    }

    /// Computes a part of it: no more than nobody minds to wait for. What fails is not tried again, and no state is the worse for
    /// it.
    fn compute_early(&mut self) -> Result<(), PredictorError> {
        Ok(())
    }

    /// The first half of a [`Predictor::forward`], for a device that computes while nobody waits for it. The states are those
    /// after it at once. False: nothing has happened, and it takes a whole forward, with none under way.
    fn submit(&mut self, _: &mut [Row<'_, Self::State>]) -> Result<bool, PredictorError> {
        Ok(false)
    }

    /// Waits until everything that was submitted is computed. What was found may still be on its way.
    fn wait(&mut self) -> Result<(), PredictorError> {
        Ok(())
    }

    /// The second half, of the forward that was submitted first: waits for it, and calls `receive` as a forward does. After an
    /// error its states are undefined.
    fn collect(&mut self, _: &mut dyn FnMut(Prediction<'_>)) -> Result<(), PredictorError> {
        Err("no forward was submitted".into())
    }
}

/// What was wanted of one distribution. It is the predictor's and gone after the call: whoever receives it keeps what it
/// needs of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prediction<'a> {
    /// Which row of the forward.
    pub(crate) row: usize,
    /// Which of the distributions that the row wants, from 0.
    pub(crate) offset: usize,
    /// That of the row of logits; not finite where a logit is not, and then it is all that is known.
    pub(crate) norm: Norm,
    /// The logit of the row's token that was drawn from this distribution, where the row wants [`Want::Each`].
    pub(crate) target: Option<f32>,
    /// By the row's reduction.
    pub(crate) found: Reduced<'a>,
}

impl<'a> Prediction<'a> {
    /// Reduces a whole row of logits, as scripted predictors have them.
    #[cfg(test)]
    pub(crate) fn reduced(
        (row, offset): (usize, usize),
        (logits, norm): (&'a [f32], Norm),
        (want, tokens, reduction): (Want, &[u32], Reduction<'_>),
        room: &'a mut Room,
    ) -> Self {
        let token = tokens.get(offset).filter(|_| want == Want::Each);
        let target = token.and_then(|token| logits.get(*token as usize)).copied();
        Self { row, offset, norm, target, found: reduction.of(logits, norm, room) }
    }
}

/// One session's part of a forward.
#[derive(Debug)]
pub(crate) struct Row<'a, S> {
    pub(crate) state: &'a mut S,
    /// May be empty: then the state stays as it is.
    pub(crate) tokens: &'a [u32],
    pub(crate) want: Want,
    /// What is wanted of each of these distributions.
    pub(crate) reduction: Reduction<'a>,
}

/// The distributions that a [`Row`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// None.
    Nothing,
    /// One: what follows the last token.
    Next,
    /// One for each token: the distribution before it.
    Each,
}

impl Want {
    /// How many distributions that is for a number of tokens.
    pub(crate) fn rows(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Next => 1,
            Self::Each => tokens,
        }
    }
}

/// Calls the model; neither its errors nor its panics get further than a failure.
pub(crate) fn guard<T>(call: impl FnOnce() -> Result<T, PredictorError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(error = error.as_ref(), "the model failed");
            // A backtrace may follow; it is in the log.
            let sentence = error.to_string();
            let sentence = sentence.lines().next().unwrap_or_default();
            Err(failure::internal(format!("the model failed: {sentence}")))
        }
        Err(_) => Err(failure::internal("the model panicked, see the worker's log")),
    }
}
