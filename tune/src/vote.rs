//! `threshold_vote` on a text whose next tokens are known: how often its winner is right, by threshold and weights. Knows nothing
//! about where the candidates come from.
//!
//! The winner is argmax_w sum_j 1[ln P_j(w) > ln θ]; of equal ones the one with the larger sum_j a_j P_j(w), then the lower id.
//! Where no token has a vote, that is the argmax of the weighted average. The comparisons are those of the coordinator, number
//! for number: members without weight vote, too, and mixtures are compared as logarithms.
//!
//! ```
//! use chorus_tune::unobserved;
//! use chorus_tune::vote::{Candidates, TokenCandidates};
//!
//! # fn main() -> Result<(), chorus_tune::vote::VoteError> {
//! let mut text = Candidates::new(2)?;
//! // Ids 17 and 4, of which 4 came: what the first and the second member gave to 17, then to 4.
//! let log_probs = [0.5, 0.3, 0.35, 0.4].map(f64::ln);
//! text.push(TokenCandidates { ids: &[17, 4], log_probs: &log_probs, target: 4 })?;
//!
//! let choice = text.choose_threshold(&[0.1, 0.2, 0.45], &[1.0, 1.0])?;
//! for point in &choice.curve {
//!     println!("{}: {} right, {} by the weighted average", point.threshold, point.accuracy, point.by_weighted_average);
//! }
//! let learned = text.learn_weights(choice.best.threshold, &[vec![0.6, 0.4]], &mut unobserved)?;
//! assert_eq!((learned.accuracy, learned.equal_accuracy), (1.0, 0.0));
//! # Ok(())
//! # }
//! ```

mod candidates;
mod search;
mod threshold;

pub use candidates::{Candidates, TokenCandidates};
pub use search::VoteWeights;
pub use threshold::{ThresholdChoice, ThresholdPoint};

use std::cmp::Ordering;

use crate::simplex::WeightsError;

/// A vote that can't be held.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VoteError {
    /// Nobody.
    #[error("there are no members; allowed: at least one")]
    NoMembers,
    /// Nothing to decide.
    #[error("there are no tokens; allowed: candidates of at least one token")]
    NoTokens,
    /// Nobody stands.
    #[error("token {token} has no candidates; allowed: at least one")]
    NoCandidates {
        /// Which token, from 0.
        token: usize,
    },
    /// Numbers that don't go with the candidates.
    #[error(
        "token {token} has {candidates} candidates and {given} log-probabilities; allowed: one for each and each of the {members} members"
    )]
    Ragged {
        /// Which token, from 0.
        token: usize,
        /// How many candidates it has.
        candidates: usize,
        /// How many numbers were given.
        given: usize,
        /// How many members there are.
        members: usize,
    },
    /// One candidate twice.
    #[error("token {token} has the candidate {id} twice; allowed: each id once")]
    Twice {
        /// Which token, from 0.
        token: usize,
        /// The id.
        id: u32,
    },
    /// NaN, or the logarithm of no probability.
    #[error(
        "member {member} gives candidate {id} of token {token} the log-probability {value}; allowed: a number of at most 0, or -inf"
    )]
    Value {
        /// Which token, from 0.
        token: usize,
        /// Which candidate.
        id: u32,
        /// The place in member order, from 0.
        member: usize,
        /// The number.
        value: f64,
    },
    /// No probability to compare with.
    #[error("a threshold of {threshold}; allowed: a number from 0 to 1, without 1")]
    Threshold {
        /// What was given.
        threshold: f64,
    },
    /// Nothing to choose from.
    #[error("there are no thresholds to choose from; allowed: at least one")]
    NoThresholds,
    /// Weights that were given.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// How the vote on one token went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Winner {
    /// The token that won.
    pub id: u32,
    /// How many members voted for it.
    pub votes: usize,
    /// ln sum_j a_j P_j(id).
    pub log_prob: f64,
}

impl Winner {
    /// No token had a vote, so the winner is the weighted average's argmax.
    pub fn by_weighted_average(&self) -> bool {
        self.votes == 0
    }

    /// `Greater` where this one wins.
    fn compare(&self, other: &Self) -> Ordering {
        let votes = self.votes.cmp(&other.votes);
        votes.then(self.log_prob.total_cmp(&other.log_prob)).then(other.id.cmp(&self.id))
    }
}

/// The logarithm of a threshold, below which no log-probability is a vote.
fn log_threshold(threshold: f64) -> Result<f64, VoteError> {
    if !(0.0..1.0).contains(&threshold) {
        return Err(VoteError::Threshold { threshold });
    }
    Ok(threshold.ln())
}

/// How many members give more than the threshold.
fn votes(log_probs: &[f64], log_threshold: f64) -> usize {
    log_probs.iter().filter(|log_prob| **log_prob > log_threshold).count()
}

/// Below this a sum of probabilities may have lost members to underflow, so it is formed again from logarithms.
const SMALLEST_SUM: f64 = 1e-290;

/// ln sum_j a_j exp(l_j) with shares that sum to one, in member order and in the coordinator's way: members without a share have
/// no say, and one that shares alone keeps its number.
fn log_of_mixture(log_probs: &[f64], shares: &[f64]) -> f64 {
    let column = || log_probs.iter().copied().zip(shares).filter(|(_, share)| **share > 0.0);
    let mut members = column();
    if let (Some((only, _)), None) = (members.next(), members.next()) {
        return only.min(0.0);
    }
    // Rounding must not make a probability larger than 1.
    let column = || column().map(|(log_prob, share)| (log_prob.min(0.0), *share));
    let sum = column().fold(0.0, |sum, (log_prob, share)| sum + share * log_prob.exp());
    if sum > SMALLEST_SUM {
        return sum.ln().min(0.0);
    }
    let terms = || column().map(|(log_prob, share)| share.ln() + log_prob);
    let largest = terms().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms().map(|term| (term - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
