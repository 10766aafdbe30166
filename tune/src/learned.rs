//! What a method has learned, and what it tells while it learns. Knows no method.

use std::ops::ControlFlow;

use crate::objective::Point;

/// Weights and how good they are on the tokens that they were learned from.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// In member order, at least 0; they sum to one.
    pub weights: Vec<f64>,
    /// The mean log-probability with these weights, in nats a token.
    pub mean_log_prob: f64,
    /// exp(-mean log-probability).
    pub perplexity: f64,
    /// How often the tokens were gone through.
    pub passes: usize,
    /// How much larger than `mean_log_prob` the largest possible one is, at most, in nats a token: whatever a method did, this
    /// says how good its weights are. The objectives are concave, so it is zero at the optimum and nowhere else.
    pub duality_gap: f64,
    /// The mean log-probability at every point of the way; of methods that also try worse points, the best so far.
    pub history: Vec<f64>,
    /// Why the method ended.
    pub ended: Ended,
}

impl Learned {
    pub(crate) fn new(point: Point, passes: usize, history: Vec<f64>, ended: Ended) -> Self {
        Self {
            mean_log_prob: point.slope.mean_log_prob,
            perplexity: (-point.slope.mean_log_prob).exp(),
            weights: point.weights,
            passes,
            duality_gap: point.gap,
            history,
            ended,
        }
    }
}

/// Why a method ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The duality gap is within the tolerance.
    Converged,
    /// All passes that were allowed have been made.
    Budget,
    /// Nothing better is found any more, and the duality gap is not within the tolerance: rounding hides what is left.
    Stalled,
    /// The observer asked for it.
    Stopped,
}

/// How far a method is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Which part of the work this is about, from 0: a fold, or how many sets are done.
    pub part: usize,
    /// How many parts there are.
    pub parts: usize,
    /// Passes over the tokens in this part.
    pub passes: usize,
    /// How many there may be. Most methods end before.
    pub limit: usize,
    /// The best so far of what is maximised: the mean log-probability in nats a token, or the accuracy of a vote.
    pub best: f64,
    /// How far that is from the optimum at most, where it is known.
    pub duality_gap: Option<f64>,
}

/// Is told how far a method is, and may end it: what is the best by then is the result.
pub type Observer<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// An observer without interest.
pub fn unobserved(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
