//! [`Output`]: every tensor that a model gives, and which task it is of; and the tensors that a model takes.
//!
//! Knows nothing about how they are computed.

use crate::pb::DataType;

/// What an ensemble can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A continuation of the input.
    Generate,
    /// How likely the input is, token by token.
    Score,
    /// What follows the input.
    Predict,
}

/// A tensor that a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    GeneratedText,
    GeneratedTokens,
    GeneratedLogprobs,
    GeneratedLength,
    FinishReason,
    UsedSeed,
    BeamTexts,
    BeamLogprobs,
    BeamScores,
    Logprobs,
    MemberLogprobs,
    Perplexity,
    InputTokens,
    InputLength,
    NextProbs,
    NextTokens,
    NextTexts,
}

/// How much of it an element of a batch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// One value.
    One,
    /// Any number.
    Many,
    /// A row of any number for each member.
    Rows,
}

/// A tensor as metadata describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) datatype: DataType,
    pub(crate) extent: Extent,
}

impl Task {
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Generate, "generate"), (Self::Score, "score"), (Self::Predict, "predict")];
}

impl Output {
    /// In the order of metadata.
    pub(crate) const ALL: [Self; 17] = [
        Self::GeneratedText,
        Self::GeneratedTokens,
        Self::GeneratedLogprobs,
        Self::GeneratedLength,
        Self::FinishReason,
        Self::UsedSeed,
        Self::BeamTexts,
        Self::BeamLogprobs,
        Self::BeamScores,
        Self::Logprobs,
        Self::MemberLogprobs,
        Self::Perplexity,
        Self::InputTokens,
        Self::InputLength,
        Self::NextProbs,
        Self::NextTokens,
        Self::NextTexts,
    ];

    pub(crate) fn described(self) -> Described {
        use DataType::{TypeFp64 as Fp64, TypeInt64 as Int64, TypeString as Bytes, TypeUint64 as Uint64};
        use Extent::{Many, One, Rows};
        let (name, datatype, extent) = match self {
            Self::GeneratedText => ("generated_text", Bytes, One),
            Self::GeneratedTokens => ("generated_tokens", Int64, Many),
            Self::GeneratedLogprobs => ("generated_logprobs", Fp64, Many),
            Self::GeneratedLength => ("generated_length", Int64, One),
            Self::FinishReason => ("finish_reason", Bytes, One),
            Self::UsedSeed => ("used_seed", Uint64, One),
            Self::BeamTexts => ("beam_texts", Bytes, Many),
            Self::BeamLogprobs => ("beam_logprobs", Fp64, Many),
            Self::BeamScores => ("beam_scores", Fp64, Many),
            Self::Logprobs => ("logprobs", Fp64, Many),
            Self::MemberLogprobs => ("member_logprobs", Fp64, Rows),
            Self::Perplexity => ("perplexity", Fp64, One),
            Self::InputTokens => ("input_tokens", Int64, Many),
            Self::InputLength => ("input_length", Int64, One),
            Self::NextProbs => ("next_probs", Fp64, Many),
            Self::NextTokens => ("next_tokens", Int64, Many),
            Self::NextTexts => ("next_texts", Bytes, Many),
        };
        Described { name, datatype, extent }
    }

    pub(crate) fn name(self) -> &'static str {
        self.described().name
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|output| output.name() == name)
    }

    pub(crate) fn task(self) -> Task {
        match self {
            Self::GeneratedText
            | Self::GeneratedTokens
            | Self::GeneratedLogprobs
            | Self::GeneratedLength
            | Self::FinishReason
            | Self::UsedSeed
            | Self::BeamTexts
            | Self::BeamLogprobs
            | Self::BeamScores => Task::Generate,
            Self::Logprobs
            | Self::MemberLogprobs
            | Self::Perplexity
            | Self::InputTokens
            | Self::InputLength => Task::Score,
            Self::NextProbs | Self::NextTokens | Self::NextTexts => Task::Predict,
        }
    }

    /// What a request gets that does not say: everything that every answer has anyway. Log-probabilities of a generation need
    /// whole rows from every member, so they come only where they are asked for.
    pub(crate) fn is_given_unasked(self) -> bool {
        let asked = [Self::GeneratedLogprobs, Self::BeamTexts, Self::BeamLogprobs, Self::BeamScores];
        !asked.contains(&self)
    }

    /// Known when a generation has ended, and not before.
    pub(crate) fn is_of_the_end(self) -> bool {
        let last =
            [Self::FinishReason, Self::UsedSeed, Self::BeamTexts, Self::BeamLogprobs, Self::BeamScores];
        last.contains(&self)
    }
}

/// The tensors that a model takes. All are optional to Triton's clients; that there is `text` or `tokens` is checked here.
pub(crate) const INPUTS: [Described; 17] = {
    const fn of(name: &'static str, datatype: DataType, extent: Extent) -> Described {
        Described { name, datatype, extent }
    }
    use DataType::{
        TypeBool as Bool, TypeFp64 as Fp64, TypeInt64 as Int64, TypeString as Bytes, TypeUint64 as Uint64,
    };
    use Extent::{Many, One};
    [
        of("text", Bytes, One),
        of("tokens", Int64, Many),
        of("length", Int64, One),
        of("max_tokens", Int64, One),
        of("temperature", Fp64, One),
        of("top_k", Int64, One),
        of("top_p", Fp64, One),
        of("seed", Uint64, One),
        of("repetition_penalty", Fp64, One),
        of("stop", Bytes, Many),
        of("allowed", Int64, Many),
        of("forbidden", Int64, Many),
        of("beam_size", Int64, One),
        of("length_penalty", Fp64, One),
        of("n_best", Int64, One),
        of("top_n", Int64, One),
        of("stream", Bool, One),
    ]
};
