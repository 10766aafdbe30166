//! A next-token distribution as log-probabilities. Knows nothing about where it comes from.

use std::cmp::Ordering;

/// The log-probability (natural, f64, at most 0) of every token, by id. The probabilities sum to one but for
/// rounding (about 1e-7).
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    log_probs: Vec<f64>,
}

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f64,
}

impl Distribution {
    /// Takes log-probabilities as they are.
    pub(super) fn from_log_probs(log_probs: Vec<f64>) -> Self {
        Self { log_probs }
    }

    /// The softmax of scores of any size.
    pub(super) fn softmax(mut scores: Vec<f64>) -> Self {
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        // Not added to the largest first: a sum of huge and small would lose the small one.
        let log_sum = sum.ln();
        for score in &mut scores {
            *score = (*score - largest - log_sum).min(0.0);
        }
        Self { log_probs: scores }
    }

    /// How many tokens there are, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a distribution is never empty")]
    pub fn len(&self) -> usize {
        self.log_probs.len()
    }

    /// The log-probabilities, by id.
    pub fn log_probs(&self) -> &[f64] {
        &self.log_probs
    }

    /// The log-probability of a token; `None` outside the vocabulary.
    pub fn log_prob(&self, id: u32) -> Option<f64> {
        self.log_probs.get(id as usize).copied()
    }

    /// The likeliest token; of equal ones the one with the lowest id.
    pub fn argmax(&self) -> u32 {
        let mut best = (0, f64::NEG_INFINITY);
        for (id, log_prob) in (0..).zip(&self.log_probs) {
            if *log_prob > best.1 {
                best = (id, *log_prob);
            }
        }
        best.0
    }

    /// The `n` likeliest tokens, likeliest first, equal ones by lower id; all of them where there are fewer.
    pub fn top(&self, n: usize) -> Vec<Candidate> {
        let ids = leading(self.len(), n, |a, b| self.compare(a, b));
        let candidate = |id| Some(Candidate { id, log_prob: self.log_prob(id)? });
        ids.into_iter().filter_map(candidate).collect()
    }

    /// `Less` where `a` comes before `b`: it is likelier, or as likely and has the lower id.
    pub(super) fn compare(&self, a: u32, b: u32) -> Ordering {
        let log_prob = |id| self.log_prob(id).unwrap_or(f64::NEG_INFINITY);
        log_prob(b).total_cmp(&log_prob(a)).then(a.cmp(&b))
    }
}

/// The first `n` of the ids `0..count` in this order, sorted, without sorting the others.
pub(crate) fn leading(count: usize, n: usize, compare: impl Fn(u32, u32) -> Ordering) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..).take(count).collect();
    if n == 0 {
        return Vec::new();
    }
    if n < ids.len() {
        ids.select_nth_unstable_by(n - 1, |a, b| compare(*a, *b));
        ids.truncate(n);
    }
    ids.sort_unstable_by(|a, b| compare(*a, *b));
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_probabilities_are_ordered_by_id() {
        let distribution = Distribution::softmax(vec![1.0, 2.0, 1.0, 2.0]);
        assert_eq!(distribution.argmax(), 1);
        for n in 0..6 {
            let ids: Vec<u32> = distribution.top(n).iter().map(|candidate| candidate.id).collect();
            assert_eq!(ids, [1, 3, 0, 2][..n.min(4)]);
        }
    }

    #[test]
    fn softmax_of_huge_scores_is_finite() {
        let distribution = Distribution::softmax(vec![1e300, -1e300, 1e300]);
        assert!((distribution.log_probs()[0] - 0.5_f64.ln()).abs() < 1e-12);
        assert!(distribution.log_probs()[1].is_finite());
    }
}
