//! `threshold_vote`: every member votes for the tokens that it gives more than the threshold. Knows nothing about how
//! the mixture that decides between equal votes was formed.

use std::cmp::Ordering;

use super::{Distribution, Row, distribution::leading};

/// The token that won, how, and what it won against.
#[derive(Clone, Debug, PartialEq)]
pub struct Winner {
    /// argmax_w sum_j 1[P_j(w) > threshold]; of equal ones the likelier under the mixture, then the lower id.
    pub id: u32,
    /// How many participants voted for it.
    pub votes: u32,
    /// No token had a vote, so the winner is the mixture's argmax.
    pub by_weighted_average: bool,
    /// The weighted average of the participants.
    pub mixture: Distribution,
    votes_by_id: Vec<u32>,
}

/// A token in the order of the vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoteCandidate {
    /// The token.
    pub id: u32,
    /// How many participants voted for it.
    pub votes: u32,
    /// Its log-probability under the weighted average.
    pub log_prob: f64,
}

/// Counts the votes; `mixture` covers the same tokens as the rows.
pub(super) fn winner<'a>(
    threshold: f64,
    voters: impl Iterator<Item = Row<'a>>,
    mixture: Distribution,
) -> Winner {
    // Compared as logarithms, so that a threshold of 0 is below every probability, however small.
    let threshold = threshold.ln();
    let mut votes_by_id = vec![0; mixture.len()];
    for row in voters {
        for (votes, log_prob) in votes_by_id.iter_mut().zip(row.log_probs()) {
            *votes += u32::from(log_prob > threshold);
        }
    }
    let mut winner = Winner { id: 0, votes: 0, by_weighted_average: false, mixture, votes_by_id };
    let ids = (0..).take(winner.mixture.len());
    winner.id = ids.min_by(|a, b| winner.compare(*a, *b)).unwrap_or(0);
    winner.votes = winner.votes_for(winner.id);
    winner.by_weighted_average = winner.votes == 0;
    winner
}

impl Winner {
    /// How many participants gave this token more than the threshold; 0 outside the vocabulary.
    pub fn votes_for(&self, id: u32) -> u32 {
        self.votes_by_id.get(id as usize).copied().unwrap_or(0)
    }

    /// The first `n` tokens: most votes first, then the likelier under the mixture, then the lower id. The winner leads.
    pub fn top(&self, n: usize) -> Vec<VoteCandidate> {
        let candidate =
            |id| Some(VoteCandidate { id, votes: self.votes_for(id), log_prob: self.mixture.log_prob(id)? });
        leading(self.mixture.len(), n, |a, b| self.compare(a, b)).into_iter().filter_map(candidate).collect()
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let votes = self.votes_for(b).cmp(&self.votes_for(a));
        votes.then_with(|| self.mixture.compare(a, b))
    }
}
