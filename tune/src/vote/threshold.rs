//! The threshold with which the vote is right most often. Knows nothing about how weights are chosen.

use std::ops::Range;

use rayon::prelude::*;

use super::{Candidates, VoteError, log_threshold};
use crate::simplex::shares;
use crate::sums::blocks;

/// How the vote does with one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdPoint {
    /// The threshold.
    pub threshold: f64,
    /// The share of tokens on which the winner is the token that came.
    pub accuracy: f64,
    /// The share of tokens on which nobody voted, so that the weighted average decided.
    pub by_weighted_average: f64,
}

/// The best threshold and the curve that it was chosen from.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdChoice {
    /// The best one.
    pub best: ThresholdPoint,
    /// All of them, in the order in which they were given.
    pub curve: Vec<ThresholdPoint>,
}

impl Candidates {
    /// How the vote does with a threshold and weights, which are scaled to sum to one.
    ///
    /// # Errors
    /// No tokens, a threshold outside [0, 1), weights that can't be shares.
    pub fn hold(&self, threshold: f64, weights: &[f64]) -> Result<ThresholdPoint, VoteError> {
        self.require_tokens()?;
        let (log_threshold, shares) = (log_threshold(threshold)?, shares(weights, self.members())?);
        let on_token = |token: usize| {
            let candidates = self.token(token)?;
            let winner = candidates.winner(log_threshold, &shares)?;
            Some((usize::from(winner.id == candidates.target), usize::from(winner.by_weighted_average())))
        };
        let in_block = |tokens: Range<usize>| tokens.filter_map(on_token).fold((0, 0), add);
        let (right, averaged) = blocks(self.tokens()).map(in_block).reduce(|| (0, 0), add);
        let share = |count: usize| count as f64 / self.tokens() as f64;
        Ok(ThresholdPoint { threshold, accuracy: share(right), by_weighted_average: share(averaged) })
    }

    /// The threshold of a list with which the vote is right most often; of equally good ones the one that leaves less to the
    /// weighted average, then the lower one.
    ///
    /// # Errors
    /// No tokens, no thresholds or one outside [0, 1), weights that can't be shares.
    pub fn choose_threshold(
        &self,
        thresholds: &[f64],
        weights: &[f64],
    ) -> Result<ThresholdChoice, VoteError> {
        let curve: Vec<ThresholdPoint> =
            thresholds.iter().map(|threshold| self.hold(*threshold, weights)).collect::<Result<_, _>>()?;
        let best = curve.iter().copied().max_by(|one, other| {
            let right = one.accuracy.total_cmp(&other.accuracy);
            let by_votes = other.by_weighted_average.total_cmp(&one.by_weighted_average);
            right.then(by_votes).then(other.threshold.total_cmp(&one.threshold))
        });
        Ok(ThresholdChoice { best: best.ok_or(VoteError::NoThresholds)?, curve })
    }
}

fn add(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0 + other.0, one.1 + other.1)
}
