//! How likely a text is under a member and under a mixture of them. Knows nothing about how weights are learned.

use super::LogProbs;
use crate::simplex::{WeightsError, shares};
use crate::sums::sum_in_blocks;

impl LogProbs {
    /// The mean log-probability of a member alone, in nats a token; minus infinity where it gives a token probability zero.
    /// `None` for a place that is nobody's.
    pub fn mean_log_prob_of(&self, member: usize) -> Option<f64> {
        let column = self.column(member);
        (!column.is_empty())
            .then(|| sum_in_blocks(column.len(), |range| column[range].iter().sum()) / column.len() as f64)
    }

    /// A member's perplexity, exp(-mean log-probability). `None` for a place that is nobody's.
    pub fn perplexity_of(&self, member: usize) -> Option<f64> {
        self.mean_log_prob_of(member).map(|mean| (-mean).exp())
    }

    /// The mean log-probability of the weighted average, mean_t ln sum_j a_j P_j(w_t), in nats a token, with weights in member
    /// order that are scaled to sum to one; minus infinity where a token has probability zero.
    ///
    /// # Errors
    /// What [`crate::shares`] refuses.
    pub fn mean_log_prob(&self, weights: &[f64]) -> Result<f64, WeightsError> {
        let shares = shares(weights, self.members.len())?;
        let sharing = || shares.iter().copied().enumerate().filter(|(_, share)| *share > 0.0);
        let mixture = |token: usize| {
            // Scaled by the largest, which may be too small for an f64 to hold.
            let largest =
                sharing().map(|(member, _)| self.column(member)[token]).fold(f64::NEG_INFINITY, f64::max);
            if largest == f64::NEG_INFINITY {
                return largest;
            }
            let scaled = |(member, share): (usize, f64)| share * (self.column(member)[token] - largest).exp();
            largest + sharing().map(scaled).sum::<f64>().ln()
        };
        Ok(sum_in_blocks(self.tokens(), |range| range.map(mixture).sum()) / self.tokens() as f64)
    }

    /// The weighted average's perplexity, exp(-mean log-probability), as [`LogProbs::mean_log_prob`].
    ///
    /// # Errors
    /// What [`crate::shares`] refuses.
    pub fn perplexity(&self, weights: &[f64]) -> Result<f64, WeightsError> {
        Ok((-self.mean_log_prob(weights)?).exp())
    }
}
