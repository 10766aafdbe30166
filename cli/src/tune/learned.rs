//! [`Learned`]: what a run of `chorus tune` found, whatever the rule. Knows nothing about how it was found or is shown.

use chorus_tune::vote::ThresholdChoice;
use chorus_tune::{CrossValidation, MemberValues};

/// What was found.
#[derive(Debug)]
pub(crate) struct Learned {
    /// How, for people.
    pub(crate) method: String,
    /// Tokens that it was learned on.
    pub(crate) tokens: usize,
    pub(crate) members: Vec<String>,
    /// For all members together, in member order.
    pub(crate) weights: Vec<f64>,
    /// Of every set that may be left, all members first.
    pub(crate) sets: Vec<Set>,
    pub(crate) quality: Quality,
}

/// The weights of members that take part together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Set {
    /// Their places, ascending.
    pub(crate) members: Vec<usize>,
    /// One for each of them.
    pub(crate) weights: Vec<f64>,
    /// Perplexity, or accuracy of a vote; none where it is infinite.
    pub(crate) value: Option<f64>,
}

/// How good it is.
#[derive(Debug)]
pub(crate) enum Quality {
    /// Of a distribution.
    Perplexity(Box<Perplexities>),
    /// Of a vote.
    Accuracy {
        choice: ThresholdChoice,
        /// With equal weights at the chosen threshold.
        equal: f64,
    },
}

/// Perplexities of the text.
#[derive(Debug)]
pub(crate) struct Perplexities {
    /// In member order.
    pub(crate) members: Vec<f64>,
    pub(crate) equal: f64,
    pub(crate) learned: f64,
    pub(crate) duality_gap: f64,
    pub(crate) folds: Option<CrossValidation>,
    /// Where every set gives every token more than nothing.
    pub(crate) values: Option<MemberValues>,
}
