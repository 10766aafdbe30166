//! Why weights can't be learned, in sentences for people. Knows no method from the inside.

use std::error::Error;

use crate::log_probs::LogProbsError;
use crate::simplex::WeightsError;

/// Weights that can't be learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The log-probabilities, or a part of them.
    #[error(transparent)]
    LogProbs(#[from] LogProbsError),
    /// Weights that were given.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An option of a method.
    #[error("{option} is {value}; allowed: {allowed}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What could have been.
        allowed: &'static str,
    },
    /// A method that can't learn exponents.
    #[error(
        "expectation-maximisation learns a weighted average; allowed for the exponents of log_linear: gradient, bayes"
    )]
    NotForExponents,
    /// One fold has nothing to learn from, or nothing to be held against.
    #[error("cross-validation in {folds} folds; allowed: at least 2")]
    TooFewFolds {
        /// What was asked for.
        folds: usize,
    },
    /// A fold would be empty.
    #[error(
        "{tokens} tokens can't be shared out among {folds} folds; allowed: at most as many folds as tokens"
    )]
    TooFewTokens {
        /// How many tokens there are.
        tokens: usize,
        /// What was asked for.
        folds: usize,
    },
    /// Rows without members, vocabulary or tokens, or larger ones than can be computed with.
    #[error(
        "dense rows of {tokens} tokens, {members} members and {vocab_size} ids; allowed: at least one of each, and at most {most} \
         members times ids"
    )]
    RowsShape {
        /// How many tokens there are.
        tokens: usize,
        /// How many members.
        members: usize,
        /// How many ids a row has.
        vocab_size: usize,
        /// How many numbers a token may have.
        most: usize,
    },
    /// Whoever keeps the rows could not give them.
    #[error("the rows of tokens {start} to {end} can't be read")]
    Rows {
        /// The first of them, from 0.
        start: usize,
        /// The one behind the last.
        end: usize,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A number of a row that is NaN or infinite.
    #[error(
        "member {member} gives id {id} at token {token} the log-probability {value}; allowed: a finite number"
    )]
    RowValue {
        /// Which token, from 0.
        token: usize,
        /// The place in member order, from 0.
        member: usize,
        /// Which id of the vocabulary.
        id: usize,
        /// The number.
        value: f32,
    },
    /// A target outside the vocabulary.
    #[error("token {token} is id {id}; allowed: an id below {vocab_size}")]
    Target {
        /// Which token, from 0.
        token: usize,
        /// Its id.
        id: u32,
        /// How many ids there are.
        vocab_size: usize,
    },
    /// The observer asked for an end before there was a result.
    #[error("stopped before there was a result")]
    Stopped,
    /// Tensors could not be computed with.
    #[error("the gradient can't be computed")]
    Tensor(#[from] candle_core::Error),
}

impl LearnError {
    pub(crate) fn require_positive(option: &'static str, value: f64) -> Result<(), Self> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(Self::Option { option, value: value.to_string(), allowed: "a finite number above 0" })
    }

    pub(crate) fn require_some(option: &'static str, value: usize) -> Result<(), Self> {
        if value > 0 {
            return Ok(());
        }
        Err(Self::Option { option, value: value.to_string(), allowed: "at least 1" })
    }
}
