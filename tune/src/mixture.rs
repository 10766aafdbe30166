//! The weighted average's mean log-probability and its slope, in one pass over all tokens. Knows nothing about who walks
//! up the slope.

use std::ops::Range;

use candle_core::{Device, Tensor, Var};
use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::error::LearnError;
use crate::log_probs::LogProbs;
use crate::objective::{Objective, Slope};
use crate::sums::{BLOCK, blocks, range};

/// Sums that run beside each other, so that a processor can add them as vectors. Their number is part of the result's bits.
const LANES: usize = 8;

/// Mixtures whose product one logarithm is taken of, and the least that such a product may be.
const FACTORS: usize = 8;
const SMALLEST_PRODUCT: f64 = 1e-280;

/// Probabilities of tokens by member, each token's scaled so that its largest is 1: mixtures of them never underflow because
/// a token is unlikely, and the scale only adds a constant to the mean log-probability.
pub(crate) struct Mixture {
    members: usize,
    tokens: usize,
    /// Block by block: `[members, tokens of the block]`.
    probabilities: Vec<f64>,
    /// The mean of the logarithms of all scales.
    offset: f64,
}

impl Mixture {
    /// Scales the numbers of a matrix. Tokens that have probability zero under every member are left out: no weights can
    /// change that.
    pub(crate) fn new(log_probs: &LogProbs) -> Self {
        let members = log_probs.members().len();
        let columns: Vec<&[f64]> = (0..members).map(|member| log_probs.column(member)).collect();
        let possible = |token: &usize| columns.iter().any(|column| column[*token] > f64::NEG_INFINITY);
        let kept: Vec<usize> = (0..log_probs.tokens()).filter(possible).collect();
        let (blocks, offsets): (Vec<Vec<f64>>, Vec<f64>) =
            kept.par_chunks(BLOCK).map(|tokens| scale(&columns, tokens)).unzip();
        let tokens = kept.len();
        let offset = offsets.iter().sum::<f64>() / tokens.max(1) as f64;
        Self { members, tokens, probabilities: blocks.concat(), offset }
    }

    /// How many tokens some weights can make possible.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    fn block(&self, tokens: &Range<usize>) -> &[f64] {
        &self.probabilities[tokens.start * self.members..tokens.end * self.members]
    }

    /// The value and the slope at weights that are at least 0 and sum to one.
    ///
    /// F(a) = mean_t ln sum_j a_j p_tj, so dF/da_j = mean_t p_tj / sum_k a_k p_tk, and sum_j a_j dF/da_j = 1.
    pub(crate) fn slope(&self, weights: &[f64]) -> Slope {
        let parts: Vec<(f64, Vec<f64>)> =
            blocks(self.tokens).map(|tokens| self.slope_of_block(&tokens, weights)).collect();
        let mut slope = Slope { mean_log_prob: 0.0, gradient: vec![0.0; self.members] };
        for (sum, gradient) in &parts {
            slope.mean_log_prob += sum;
            slope.gradient.iter_mut().zip(gradient).for_each(|(total, part)| *total += part);
        }
        let tokens = self.tokens as f64;
        slope.mean_log_prob = slope.mean_log_prob / tokens + self.offset;
        slope.gradient.iter_mut().for_each(|total| *total /= tokens);
        slope
    }

    fn slope_of_block(&self, tokens: &Range<usize>, weights: &[f64]) -> (f64, Vec<f64>) {
        let block = self.block(tokens);
        let mut mixtures = [0.0; BLOCK];
        let mixtures = &mut mixtures[..tokens.len()];
        mix(block, weights, mixtures);
        let sum = sum_of_logs(mixtures);
        mixtures.iter_mut().for_each(|mixture| *mixture = 1.0 / *mixture);
        (sum, block.chunks_exact(tokens.len()).map(|column| dot(column, mixtures)).collect())
    }

    /// The negative of the second derivative, mean_t p_tj p_tk / mix_t^2.
    pub(crate) fn curvature(&self, weights: &[f64]) -> DMatrix<f64> {
        let parts: Vec<DMatrix<f64>> =
            blocks(self.tokens).map(|tokens| self.curvature_of_block(&tokens, weights)).collect();
        let zero = DMatrix::zeros(self.members, self.members);
        let lower = parts.iter().fold(zero, |total, part| total + part) / self.tokens as f64;
        DMatrix::from_fn(self.members, self.members, |row, column| lower[(row.max(column), row.min(column))])
    }

    fn curvature_of_block(&self, tokens: &Range<usize>, weights: &[f64]) -> DMatrix<f64> {
        let mut mixtures = [0.0; BLOCK];
        let mixtures = &mut mixtures[..tokens.len()];
        mix(self.block(tokens), weights, mixtures);
        let mut ratios = self.block(tokens).to_vec();
        for column in ratios.chunks_exact_mut(tokens.len()) {
            column.iter_mut().zip(mixtures.iter()).for_each(|(value, mixture)| *value /= mixture);
        }
        let column = |member: usize| &ratios[member * tokens.len()..][..tokens.len()];
        let entry = |row, other| if other <= row { dot(column(row), column(other)) } else { 0.0 };
        DMatrix::from_fn(self.members, self.members, entry)
    }

    /// The value alone.
    pub(crate) fn value(&self, weights: &[f64]) -> f64 {
        let parts: Vec<f64> = blocks(self.tokens)
            .map(|tokens| {
                let mut mixtures = [0.0; BLOCK];
                let mixtures = &mut mixtures[..tokens.len()];
                mix(self.block(&tokens), weights, mixtures);
                sum_of_logs(mixtures)
            })
            .collect();
        parts.iter().sum::<f64>() / self.tokens as f64 + self.offset
    }
}

/// A block's scaled probabilities and the sum of the logarithms of its scales.
fn scale(columns: &[&[f64]], tokens: &[usize]) -> (Vec<f64>, f64) {
    let largest =
        |token: &usize| columns.iter().map(|column| column[*token]).fold(f64::NEG_INFINITY, f64::max);
    let scales: Vec<f64> = tokens.iter().map(largest).collect();
    let scaled = columns
        .iter()
        .flat_map(|column| tokens.iter().zip(&scales).map(|(token, scale)| (column[*token] - scale).exp()));
    (scaled.collect(), scales.iter().sum())
}

/// sum_j a_j p_tj of every token of a block.
fn mix(block: &[f64], weights: &[f64], mixtures: &mut [f64]) {
    for (column, &weight) in block.chunks_exact(mixtures.len()).zip(weights) {
        mixtures.iter_mut().zip(column).for_each(|(mixture, value)| *mixture += weight * value);
    }
}

/// The sum of logarithms, of several numbers at once where their product can be held.
fn sum_of_logs(mixtures: &[f64]) -> f64 {
    let of_chunk = |chunk: &[f64]| {
        let product: f64 = chunk.iter().product();
        if product > SMALLEST_PRODUCT { product.ln() } else { chunk.iter().map(|mixture| mixture.ln()).sum() }
    };
    mixtures.chunks(FACTORS).map(of_chunk).sum()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The weighted average with candle's autograd behind it.
pub(crate) struct DifferentiableMixture {
    mixture: Mixture,
    /// `[members, tokens]`.
    probabilities: Tensor,
}

impl DifferentiableMixture {
    /// Copies the scaled probabilities into a tensor.
    pub(crate) fn new(mixture: Mixture) -> Result<Self, LearnError> {
        let (members, tokens) = (mixture.members, mixture.tokens);
        let mut values = Vec::with_capacity(members * tokens);
        for member in 0..members {
            for block in 0..tokens.div_ceil(BLOCK) {
                let tokens = range(block, tokens);
                values.extend_from_slice(&mixture.block(&tokens)[member * tokens.len()..][..tokens.len()]);
            }
        }
        let probabilities = Tensor::from_vec(values, (members, tokens), &Device::Cpu)?;
        Ok(Self { mixture, probabilities })
    }
}

impl Objective for DifferentiableMixture {
    fn members(&self) -> usize {
        self.mixture.members
    }

    fn mean_log_prob(&self, weights: &[f64]) -> Result<f64, LearnError> {
        Ok(self.mixture.value(weights))
    }

    fn differentiate(&self, shares: &[f64]) -> Result<Slope, LearnError> {
        let weights = Var::from_slice(shares, (1, shares.len()), &Device::Cpu)?;
        let mean = weights.matmul(&self.probabilities)?.log()?.mean_all()?;
        let gradients = mean.backward()?;
        let gradient = match gradients.get(&weights) {
            Some(gradient) => gradient.flatten_all()?.to_vec1()?,
            None => vec![0.0; self.mixture.members],
        };
        // The same value from sums of sums, in which less is rounded away.
        Ok(Slope { mean_log_prob: self.mean_log_prob(shares)?, gradient })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simplex::shares;

    fn matrix(members: usize) -> impl Strategy<Value = (LogProbs, Vec<f64>)> {
        let number = prop_oneof![8 => -12.0..0.0_f64, 1 => -2000.0..-600.0_f64, 1 => Just(f64::NEG_INFINITY)];
        // The first member is possible everywhere.
        let row = (-12.0..0.0_f64, prop::collection::vec(number, members - 1))
            .prop_map(|(first, rest)| [vec![first], rest].concat());
        let rows = prop::collection::vec(row, 1..40);
        (rows, prop::collection::vec(0.01..1.0_f64, members)).prop_map(move |(rows, weights)| {
            let names = (0..members).map(|member| member.to_string()).collect();
            (LogProbs::new(names, rows).unwrap(), shares(&weights, members).unwrap())
        })
    }

    proptest! {
        #[test]
        fn one_pass_is_the_formula_and_its_derivative((log_probs, weights) in matrix(3)) {
            let slope = Mixture::new(&log_probs).slope(&weights);
            let expected = log_probs.mean_log_prob(&weights).unwrap();
            prop_assert!((slope.mean_log_prob - expected).abs() <= 1e-11 * (1.0 + expected.abs()));
            let along: f64 = slope.gradient.iter().zip(&weights).map(|(slope, weight)| slope * weight).sum();
            prop_assert!((along - 1.0).abs() < 1e-12);
            let by_autograd = DifferentiableMixture::new(Mixture::new(&log_probs)).unwrap();
            let autograd = by_autograd.differentiate(&weights).unwrap();
            prop_assert!((autograd.mean_log_prob - expected).abs() <= 1e-11 * (1.0 + expected.abs()));
            let value = by_autograd.mean_log_prob(&weights).unwrap();
            prop_assert!((value - expected).abs() <= 1e-11 * (1.0 + expected.abs()));
            for (ours, theirs) in slope.gradient.iter().zip(&autograd.gradient) {
                prop_assert!((ours - theirs).abs() <= 1e-11 * (1.0 + ours.abs()));
            }
        }
    }

    #[test]
    fn threads_and_blocks_change_nothing() {
        let rows = (0..3 * BLOCK + 17).map(|token| [-0.1 - (token % 7) as f64, -0.2 - (token % 11) as f64]);
        let log_probs = LogProbs::new(vec!["alto".into(), "bass".into()], rows).unwrap();
        let slope = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Mixture::new(&log_probs).slope(&[0.3, 0.7]))
        };
        let (one, many) = (slope(1), slope(5));
        assert_eq!(one.mean_log_prob.to_bits(), many.mean_log_prob.to_bits());
        assert_eq!(one.gradient, many.gradient);
        assert!((one.mean_log_prob - log_probs.mean_log_prob(&[0.3, 0.7]).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn probabilities_that_no_number_can_hold_are_mixed() {
        let log_probs = LogProbs::new(vec!["alto".into(), "bass".into()], [[-3000.0, -3001.0]; 20]).unwrap();
        let slope = Mixture::new(&log_probs).slope(&[0.5, 0.5]);
        let expected = -3000.0 + (0.5 * (1.0 + (-1.0_f64).exp())).ln();
        assert!((slope.mean_log_prob - expected).abs() < 1e-9);
        // Mixtures far below their scale, whose product underflows.
        let log_probs = LogProbs::new(vec!["alto".into(), "bass".into()], [[0.0, -50.0]; 20]).unwrap();
        let value = Mixture::new(&log_probs).value(&[1e-200, 1.0]);
        assert!((value + 50.0).abs() < 1e-9);
    }
}
