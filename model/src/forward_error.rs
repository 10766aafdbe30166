//! Why a call of a model computed nothing. Knows nothing about how one is computed.

use thiserror::Error;

/// Why nothing was computed. All states are as before, but for those of a call that was begun already.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// A token is not in the vocabulary.
    #[error("token {token} of row {row} is not in the vocabulary, whose largest id is {}", vocab_size - 1)]
    TokenOutOfVocabulary {
        /// Which row of the call.
        row: usize,
        /// The token id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// More logits are wanted of a distribution than it has.
    #[error(
        "row {row} asks for the logits of {found} tokens, allowed are at most {vocab_size}, one for each token"
    )]
    TooManyIds {
        /// Which row of the call.
        row: usize,
        /// How many.
        found: usize,
        /// V.
        vocab_size: usize,
    },
    /// A state of another shape: it came from another model.
    #[error("a state of this model has {expected} numbers, but this one has {found}")]
    StateSize {
        /// The numbers in it.
        found: usize,
        /// `2 * layers * hidden_size`.
        expected: usize,
    },
    /// A state holds NaN or infinity.
    #[error("number {index} of the state is {value}, but only finite numbers are allowed")]
    StateNotFinite {
        /// Which number.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A state that stands somewhere else: it is another model's, or the same model's on another device.
    #[error("a state is not of this model's device")]
    ForeignState,
    /// As many states are alive as the device has room for.
    #[error("the device has room for {slots} states and no more is free")]
    NoSlot {
        /// Places of states.
        slots: usize,
    },
    /// A whole call while the answers of one in two halves are not taken in: both need the memory that they arrive in.
    #[error("a call that was submitted has to be collected before")]
    UnderWay,
    /// Answers are to be taken in of a call that there is not.
    #[error("no call was submitted whose answers could be collected")]
    NothingSubmitted,
    /// The device failed.
    #[error("the model can't be computed")]
    Compute(#[from] candle_core::Error),
}
