//! Whether who leads can still change when the members that are awaited answer, whatever they answer, and whoever of them
//! does not.
//!
//! With weights α, shares of all members that answered or are awaited, every token w has Σ α_j P_j(w) over those that
//! answered, plus at most Σ α_j over those that are awaited. So the leader stays the leader where it is ahead by more than
//! these. A vote adds at most one vote a member. What may end in a tie is open. Knows nothing about time or how members are
//! asked.

use super::Fused;
use super::certificate::{Ahead, Margin};

/// Margins are differences of rounded sums; what is nearer than this is open.
const ROUNDING: f64 = 1e-9;

impl Margin {
    /// Whether nobody that is awaited can change who leads. `answered` and `awaited` are the weights of the members that did
    /// answer and of those that did not yet.
    ///
    /// ```
    /// use chorus_coordinator::fusion::certificate::Margin;
    ///
    /// // Two of three members have token 7 ahead by 0.6, and nothing that the third says can make up for that.
    /// assert!(Margin::Probability(0.6).is_decisive(&[1.0, 1.0], &[1.0]));
    /// assert!(!Margin::Probability(0.4).is_decisive(&[1.0, 1.0], &[1.0]));
    /// assert!(Margin::Votes(2).is_decisive(&[1.0, 1.0], &[1.0]));
    /// assert!(!Margin::Votes(1).is_decisive(&[1.0, 1.0], &[1.0]));
    /// ```
    pub fn is_decisive(self, answered: &[f64], awaited: &[f64]) -> bool {
        match self {
            Self::Votes(votes) => votes as usize > awaited.len(),
            Self::Probability(lead) => {
                // Scaled, since the sum of huge weights is infinite.
                let largest = answered.iter().chain(awaited).copied().fold(0.0, f64::max);
                let sum = |weights: &[f64]| weights.iter().map(|weight| weight / largest).sum::<f64>();
                largest > 0.0 && sum(answered) * (lead - ROUNDING) > sum(awaited)
            }
        }
    }
}

/// By how much the first token of a fused result leads.
pub fn ahead_of(fused: Fused<'_>) -> Ahead {
    match fused {
        Fused::Distribution(distribution) => {
            let top = distribution.top(2);
            let probability = |place: usize| top.get(place).map_or(0.0, |candidate| candidate.log_prob.exp());
            let id = top.first().map_or(0, |candidate| candidate.id);
            Ahead { id, margin: Margin::Probability(probability(0) - probability(1)) }
        }
        Fused::Winner(winner) => {
            let top = winner.top(2);
            let votes = |place: usize| top.get(place).map_or(0, |candidate| candidate.votes);
            let id = top.first().map_or(0, |candidate| candidate.id);
            Ahead { id, margin: Margin::Votes(votes(0) - votes(1)) }
        }
    }
}
