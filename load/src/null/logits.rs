//! Rows of logits that look like a language model's, computed once. Knows nothing about asks or answers.

use bytes::Bytes;
use chorus_proto::{put_values, rounded, v1::RowFormat};
use chorus_simd::Norm;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Contexts that have rows of their own: the last token decides which is used.
const CONTEXTS: usize = 4;
/// Opinions about a context: members are spread over them.
const OPINIONS: usize = 4;
/// Zipf's law with Mandelbrot's offset: the probability of the k-th likeliest token is proportional to (k + 2.7)^-1.
const OFFSET: f64 = 2.7;
/// What members disagree by: the deviation of a logit from what all of them have, uniform in ± this.
const DISAGREEMENT: f32 = 0.7;

/// One row, ready for the wire and for look-ups.
#[derive(Debug, Clone)]
pub(super) struct NullRow {
    pub(super) logits: Vec<f32>,
    /// The same, little-endian. A clone shares them.
    pub(super) bytes: Bytes,
    pub(super) norm: Norm,
    /// The tokens, likeliest first, equal ones by id.
    order: Vec<u32>,
}

/// The rows of all members: in each context a Zipf distribution over another order of the tokens, about which members
/// agree but for some noise.
#[derive(Debug)]
pub(super) struct NullLogits {
    rows: Vec<NullRow>,
}

impl NullLogits {
    pub(super) fn new(vocabulary_size: u32) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(vocabulary_size));
        let mut rows = Vec::with_capacity(CONTEXTS * OPINIONS);
        for _ in 0..CONTEXTS {
            let common = zipf(vocabulary_size as usize, &mut random);
            for _ in 0..OPINIONS {
                let own = common.iter().map(|logit| logit + random.random_range(-DISAGREEMENT..DISAGREEMENT));
                rows.push(NullRow::new(own.collect()));
            }
        }
        Self { rows }
    }

    /// What a member has to say after a token; none is the start of a sequence.
    pub(super) fn row(&self, member: usize, after: Option<u32>) -> &NullRow {
        let context = after.map_or(0, |token| token as usize % CONTEXTS);
        &self.rows[context * OPINIONS + member % OPINIONS]
    }
}

impl NullRow {
    fn new(logits: Vec<f32>) -> Self {
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let norm = chorus_simd::norm(&logits);
        let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        order.sort_by(|one, other| other.1.total_cmp(&one.1));
        let order = order.into_iter().map(|(token, _)| token).collect();
        Self { logits, bytes: bytes.into(), norm, order }
    }

    /// The logit of a token; that of token 0 for one that is not in the vocabulary.
    pub(super) fn logit(&self, token: u32) -> f32 {
        self.logits.get(token as usize).or(self.logits.first()).copied().unwrap_or_default()
    }

    /// The log-probability of a token.
    pub(super) fn log_prob(&self, token: u32) -> f64 {
        self.norm.log_prob(self.logit(token))
    }

    /// The `k` likeliest tokens and all above the threshold, ascending.
    pub(super) fn top(&self, k: usize, log_threshold: Option<f64>) -> Vec<u32> {
        let above = log_threshold
            .map_or(0, |threshold| self.order.partition_point(|token| self.log_prob(*token) > threshold));
        let mut tokens: Vec<u32> = self.order.iter().copied().take(k.max(above)).collect();
        tokens.sort_unstable();
        tokens
    }

    /// The row in a format that rounds, with the norm that it then has.
    pub(super) fn rounded(&self, format: RowFormat) -> (Vec<u8>, Norm) {
        let distances = self.logits.iter().map(|logit| rounded(logit - self.norm.largest, format));
        let distances: Vec<f32> = distances.collect();
        let Norm { log_sum, .. } = chorus_simd::norm(&distances);
        let mut bytes = Vec::new();
        put_values(&mut bytes, distances.into_iter(), format);
        (bytes, Norm { largest: self.norm.largest, log_sum })
    }
}

fn zipf(vocabulary_size: usize, random: &mut impl Rng) -> Vec<f32> {
    let mut logits: Vec<f32> =
        (0..vocabulary_size).map(|rank| -(rank as f64 + 1.0 + OFFSET).ln() as f32).collect();
    // Fisher and Yates.
    for index in (1..logits.len()).rev() {
        logits.swap(index, random.random_range(0..=index));
    }
    logits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_distribution_of_which_few_tokens_have_much() {
        let logits = NullLogits::new(10_000);
        for (member, after) in [(0, None), (1, Some(3)), (63, Some(9_999))] {
            let row = logits.row(member, after);
            let mut probabilities: Vec<f64> = (0..10_000).map(|token| row.log_prob(token).exp()).collect();
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            probabilities.sort_by(|one, other| other.total_cmp(one));
            let head: f64 = probabilities[..100].iter().sum();
            assert!((0.3..0.7).contains(&head), "{head}");
            assert_eq!(row.bytes.len(), 40_000);
            assert_eq!(row.bytes[..4], row.logits[0].to_le_bytes());
        }
    }

    #[test]
    fn members_agree_about_what_is_likely_and_not_to_the_number() {
        let logits = NullLogits::new(1000);
        let (one, other) = (logits.row(0, Some(1)), logits.row(1, Some(1)));
        let elsewhere = logits.row(0, Some(2));
        let distance = |a: &NullRow, b: &NullRow| {
            a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(distance(one, other) > 0.1 && distance(one, other) <= 2.0 * DISAGREEMENT);
        assert!(distance(one, elsewhere) > 2.0 * DISAGREEMENT);
    }
}
