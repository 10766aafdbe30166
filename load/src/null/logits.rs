//! Rows of logits that look like a language model's, computed once, with all that may be asked about them. Knows nothing
//! about asks or answers.

use bytes::Bytes;
use chorus_proto::{
    put_values, rounded,
    v1::{Norms, RowFormat},
};
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
/// In the order of their numbers.
const FORMATS: [RowFormat; 3] = [RowFormat::F32, RowFormat::F16, RowFormat::Bf16];

/// One row, and what of it is looked up.
#[derive(Debug, Clone)]
pub(super) struct NullRow {
    logits: Vec<f32>,
    norm: Norm,
    /// The row in each of [`FORMATS`], ready for the wire, with the norm that it has there. A clone shares the bytes.
    travelling: [(Bytes, Norm); FORMATS.len()],
    /// Ids, the likeliest first, of equal ones the lower.
    likeliest: Vec<u32>,
    /// The sum of the probabilities up to each token, in the order of ids.
    cumulative: Vec<f64>,
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
        let norm = chorus_simd::norm(&logits);
        let mut likeliest: Vec<u32> = (0..).zip(&logits).map(|(id, _)| id).collect();
        // Stable: of equal ones the lower id stays in front.
        likeliest.sort_by(|one, other| logits[*other as usize].total_cmp(&logits[*one as usize]));
        let mut sum = 0.0;
        let cumulative = logits.iter().map(|logit| {
            sum += norm.log_prob(*logit).exp();
            sum
        });
        Self {
            cumulative: cumulative.collect(),
            travelling: FORMATS.map(|format| travelling(&logits, norm, format)),
            norm,
            likeliest,
            logits,
        }
    }

    /// The whole row in a format, with the norm that it has in it.
    pub(super) fn travelling(&self, format: RowFormat) -> &(Bytes, Norm) {
        &self.travelling[format as usize]
    }

    pub(super) fn norm(&self) -> Norm {
        self.norm
    }

    /// The logit of a token; that of token 0 for one that is not in the vocabulary.
    pub(super) fn logit(&self, token: u32) -> f32 {
        self.logits.get(token as usize).or(self.logits.first()).copied().unwrap_or_default()
    }

    /// The log-probability of a token.
    pub(super) fn log_prob(&self, token: u32) -> f64 {
        self.norm.log_prob(self.logit(token))
    }

    /// The `k` likeliest tokens and all whose log-probability is above a threshold, ascending.
    pub(super) fn top(&self, k: usize, log_threshold: Option<f64>) -> Vec<u32> {
        let above = log_threshold
            .map_or(0, |threshold| self.likeliest.partition_point(|token| self.log_prob(*token) > threshold));
        let mut top = self.likeliest[..above.max(k).min(self.likeliest.len())].to_vec();
        top.sort_unstable();
        top
    }

    /// The first token whose cumulative probability exceeds a number in [0, 1).
    pub(super) fn draw(&self, uniform: f64) -> u32 {
        let whole = self.cumulative.last().copied().unwrap_or_default();
        let token = self.cumulative.partition_point(|sum| *sum <= uniform * whole);
        u32::try_from(token.min(self.logits.len() - 1)).unwrap_or(u32::MAX)
    }
}

/// Appends a norm to those of a message.
pub(super) fn push(norms: &mut Norms, norm: Norm) {
    norms.push(norm.largest, norm.log_sum);
}

fn travelling(logits: &[f32], norm: Norm, format: RowFormat) -> (Bytes, Norm) {
    let mut bytes = Vec::new();
    if format == RowFormat::F32 {
        put_values(&mut bytes, logits.iter().copied(), format);
        return (bytes.into(), norm);
    }
    // The protocol has distances from the largest in these, and the norm of what arrives.
    let distances: Vec<f32> = logits.iter().map(|logit| rounded(logit - norm.largest, format)).collect();
    put_values(&mut bytes, distances.iter().copied(), format);
    (bytes.into(), chorus_simd::norm(&distances))
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
            for (format, bytes) in FORMATS.into_iter().zip([40_000, 20_000, 20_000]) {
                let (values, norm) = row.travelling(format);
                assert_eq!(values.len(), bytes);
                let sum: f64 = chorus_proto::values_of(values, format)
                    .into_iter()
                    .map(|logit| norm.log_prob(logit).exp())
                    .sum();
                assert!((sum - 1.0).abs() < 1e-6, "{format:?}: {sum}");
            }
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

    #[test]
    fn the_likeliest_and_the_drawn_are_those_of_the_row() {
        let logits = NullLogits::new(300);
        let row = logits.row(2, Some(7));
        let mut by_probability: Vec<u32> = (0..300).collect();
        by_probability.sort_by(|one, other| row.log_prob(*other).total_cmp(&row.log_prob(*one)));
        let leading = |count: usize| {
            let mut leading = by_probability[..count].to_vec();
            leading.sort_unstable();
            leading
        };
        assert_eq!(row.top(5, None), leading(5));
        let threshold = row.log_prob(by_probability[20]);
        assert_eq!(row.top(5, Some(threshold)), leading(20), "above, and not at, the threshold");
        assert_eq!(row.top(30, Some(threshold)), leading(30));
        assert_eq!(row.top(1000, None).len(), 300);
        for uniform in [0.0, 0.1, 0.5, 0.99, 1.0 - f64::EPSILON] {
            assert_eq!(row.draw(uniform) as usize, chorus_simd::draw(&row.logits, row.norm, uniform));
        }
    }
}
