//! What an ask needs of one distribution: pure functions of its logits, which are finite, and their norm. Knows nothing
//! about sessions, feeds or how an answer travels.

use std::{cmp::Ordering, collections::BinaryHeap};

use chorus_simd::Norm;

/// A token with its logit, ordered by how little the row needs it: the least likely is the greatest, and of equally likely
/// ones the one with the higher id.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    logit: f32,
}

impl Ord for Token {
    fn cmp(&self, other: &Self) -> Ordering {
        // Finite logits: only the two zeros compare otherwise than their bits.
        let likelier = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        likelier.then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Token {}

/// The `k` likeliest tokens, of equal ones those with the lower ids, and all whose log-probability is above the threshold:
/// (id, logit), ascending by id.
pub(crate) fn top(logits: &[f32], norm: Norm, k: usize, log_threshold: Option<f64>) -> Vec<(u32, f32)> {
    let above = log_threshold.map_or_else(Vec::new, |threshold| {
        let tokens = (0..).zip(logits.iter().copied());
        tokens.filter(|(_, logit)| norm.log_prob(*logit) > threshold).collect()
    });
    // Both are leading parts of the row in one order, so the longer one holds the other.
    if above.len() >= k { above } else { likeliest(logits, k) }
}

/// Selection by a heap of the `k` likeliest so far: in most rows hardly a token gets in.
fn likeliest(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut kept: BinaryHeap<Token> = BinaryHeap::with_capacity(k);
    for (id, &logit) in (0..).zip(logits) {
        if kept.len() < k {
            kept.push(Token { id, logit });
        } else if let Some(mut last) = kept.peek_mut()
            // A later token that is as likely has the higher id.
            && logit > last.logit
        {
            *last = Token { id, logit };
        }
    }
    let mut tokens: Vec<(u32, f32)> = kept.into_iter().map(|token| (token.id, token.logit)).collect();
    tokens.sort_unstable_by_key(|(id, _)| *id);
    tokens
}

/// The logits of these tokens, in their order; what is outside the vocabulary is left out.
pub(crate) fn logits_of<'a>(logits: &'a [f32], ids: &'a [u32]) -> impl Iterator<Item = f32> + 'a {
    ids.iter().filter_map(|id| logits.get(*id as usize).copied())
}

#[cfg(test)]
mod tests {
    use chorus_simd::norm;
    use proptest::prelude::*;

    use super::*;

    /// Few different values, so that many are equal.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec((-8_i8..8).prop_map(|value| f32::from(value) / 2.0), 1..60)
    }

    /// By sorting the whole row.
    fn naive_top(logits: &[f32], norm: Norm, k: usize, log_threshold: Option<f64>) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        // A stable sort keeps the lower id in front.
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let above = |logit: f32| {
            let log_prob = f64::from(logit) - f64::from(norm.largest) - norm.log_sum;
            log_threshold.is_some_and(|threshold| log_prob > threshold)
        };
        let mut kept: Vec<(u32, f32)> = all
            .into_iter()
            .enumerate()
            .filter(|(rank, (_, l))| *rank < k || above(*l))
            .map(|(_, t)| t)
            .collect();
        kept.sort_by_key(|(id, _)| *id);
        kept
    }

    proptest! {
        #[test]
        fn the_top_is_that_of_the_sorted_row(
            logits in logits(), k in 0_usize..70, threshold in prop::option::of(0.001_f64..0.999),
        ) {
            let (norm, log_threshold) = (norm(&logits), threshold.map(f64::ln));
            let expected = naive_top(&logits, norm, k, log_threshold);
            prop_assert_eq!(top(&logits, norm, k, log_threshold), expected);
        }
    }

    #[test]
    fn the_two_zeros_are_equally_likely() {
        let logits = [-0.0, 0.0, -0.0];
        assert_eq!(top(&logits, norm(&logits), 2, None), [(0, -0.0), (1, 0.0)]);
    }
}
