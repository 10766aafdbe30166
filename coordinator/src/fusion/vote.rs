//! `threshold_vote`: every member votes for the tokens that it gives more than the threshold. Knows nothing about how
//! the mixture that decides between equal votes was formed.

use chorus_simd::{Norm, count_at_least, find_ahead};

use super::leading::{Ranked, first, leading};
use super::{Distribution, Row};

/// The token that won, how, and what it won against.
#[derive(Debug)]
pub struct Winner<'a> {
    /// argmax_w sum_j 1[P_j(w) > threshold]; of equal ones the likelier under the mixture, then the lower id.
    pub id: u32,
    /// How many participants voted for it.
    pub votes: u32,
    /// No token had a vote, so the winner is the mixture's argmax.
    pub by_weighted_average: bool,
    /// The weighted average of the participants.
    pub mixture: Distribution<'a>,
    votes_by_id: &'a [u32],
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

impl From<Ranked> for VoteCandidate {
    fn from(ranked: Ranked) -> Self {
        Self { id: ranked.id, votes: ranked.votes, log_prob: ranked.log_prob }
    }
}

/// Counts the votes on `votes`, which has a place for each token; `mixture` covers the same tokens as the rows.
pub(super) fn winner<'a>(
    threshold: f64,
    rows: &[(f64, Row<'_>)],
    mixture: Distribution<'a>,
    votes: &'a mut [u32],
) -> Winner<'a> {
    // Compared as logarithms, so that a threshold of 0 is below every probability, however small.
    let log_threshold = threshold.ln();
    votes.fill(0);
    for (_, row) in rows {
        count_at_least(row.logits(), least_logit(row.norm(), log_threshold), votes);
    }
    let mut winner = Winner { id: 0, votes: 0, by_weighted_average: false, mixture, votes_by_id: votes };
    let ahead = |start, before: Option<(u32, f32)>| winner.next_ahead(start, before);
    // Without a vote a token has to be among the mixture's likeliest to win.
    let before = (0, winner.mixture.probabilities().largest());
    let first =
        first(before, ahead, |place| winner.key(place), |id| winner.mixture.probabilities().log_prob(id));
    winner.id = first.map_or(0, |first| first.id);
    winner.votes = winner.votes_for(winner.id);
    winner.by_weighted_average = winner.votes == 0;
    winner
}

impl Winner<'_> {
    /// How many participants gave this token more than the threshold; 0 outside the vocabulary.
    pub fn votes_for(&self, id: u32) -> u32 {
        self.votes_by_id.get(id as usize).copied().unwrap_or(0)
    }

    /// The first `n` tokens: most votes first, then the likelier under the mixture, then the lower id. The winner leads.
    pub fn top(&self, n: usize) -> Vec<VoteCandidate> {
        let next = |start, last| self.next_ahead(start, last);
        let log_prob = |id| self.mixture.probabilities().log_prob(id);
        let top = leading(n, next, |place| self.key(place), log_prob);
        top.into_iter().map(VoteCandidate::from).collect()
    }

    fn key(&self, place: usize) -> (u32, f32) {
        let value = self.mixture.probabilities().values().get(place).copied();
        (self.votes_by_id.get(place).copied().unwrap_or(0), value.unwrap_or(0.0))
    }

    /// The first token, from a place on, that may come before one of this many votes and this value.
    fn next_ahead(&self, start: usize, before: Option<(u32, f32)>) -> Option<usize> {
        let probabilities = self.mixture.probabilities();
        let (votes, bound) = before.map_or((0, -1.0), |(votes, value)| (votes, probabilities.bound(value)));
        find_ahead(self.votes_by_id, probabilities.values(), start, votes, bound)
    }
}

/// The least logit of a row with this norm whose log-probability is above the threshold; infinite where none is. A
/// log-probability never falls where a logit rises, so comparing logits with it is comparing log-probabilities, exactly.
fn least_logit(norm: Norm, log_threshold: f64) -> f32 {
    let is_above = |order: u32| norm.log_prob(in_order(order)) > log_threshold;
    let (mut low, mut high) = (order_of(f32::MIN), order_of(norm.largest));
    if !is_above(high) {
        return f32::INFINITY;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if is_above(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    in_order(low)
}

const SIGN: u32 = 1 << 31;

/// The place of a number among all f32, in ascending order.
fn order_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The number at a place.
fn in_order(order: u32) -> f32 {
    f32::from_bits(if order & SIGN == 0 { !order } else { order ^ SIGN })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comparing_logits_is_comparing_log_probabilities(
            largest in prop_oneof![-50.0_f32..50.0, Just(1e30), Just(-1e30), Just(f32::MAX), Just(f32::MIN), Just(0.0)],
            log_sum in prop_oneof![0.0_f64..12.0, Just(0.0), Just(-1e-6)],
            threshold in prop_oneof![0.0_f64..1.0, Just(0.0), Just(1e-300), Just(1.0 - 1e-16)],
            below in prop_oneof![0.0_f32..40.0, Just(0.0), Just(1e31), Just(f32::MAX)], ulps in 0_u32..4,
        ) {
            let norm = Norm { largest, log_sum };
            let least = least_logit(norm, threshold.ln());
            let is_above = |logit: f32| norm.log_prob(logit) > threshold.ln();
            let logit = (largest - below).clamp(f32::MIN, largest);
            prop_assert_eq!(logit >= least, is_above(logit), "{} and {}", logit, least);
            // Numbers beside the bound, where they are logits that a row may have.
            for neighbour in [least, (0..=ulps).fold(least, |z, _| z.next_down()), (0..ulps).fold(least, |z, _| z.next_up())] {
                if neighbour.is_finite() && neighbour <= largest {
                    prop_assert_eq!(neighbour >= least, is_above(neighbour));
                }
            }
            prop_assert!(threshold > 0.0 || least == f32::MIN, "everybody votes for everything");
        }
    }
}
