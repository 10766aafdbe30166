//! Rows of logits and their log-sum-exp.

use pulp::{Simd, WithSimd};

use crate::values::Values;
use crate::{exp, find::largest_of, instructions};

/// The log-sum-exp of a row in two parts, which would lose the smaller one in their sum where logits are huge.
/// log P(w) = logit(w) - largest - log_sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The largest logit.
    pub largest: f32,
    /// ln Σ exp(logit - largest), between 0 and ln(vocabulary size). NaN where a logit is not finite.
    pub log_sum: f64,
}

impl Norm {
    /// ln Σ exp(logit).
    #[must_use]
    pub fn log_sum_exp(self) -> f64 {
        f64::from(self.largest) + self.log_sum
    }

    /// log P of a logit of the row. At most 0, since the logit is at most the largest and the sum at least 1.
    #[must_use]
    pub fn log_prob(self, logit: f32) -> f64 {
        f64::from(logit) - f64::from(self.largest) - self.log_sum
    }

    /// Whether all logits of the row were finite.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.largest.is_finite() && self.log_sum.is_finite()
    }
}

/// The norm of a row, relative error of the sum about 1e-7: exponentials in f32, summed in f64. The order of the sum
/// depends on the instruction set, so the last bits may differ between machines.
///
/// ```
/// let norm = chorus_simd::norm(&[1000.0, 1000.0]);
/// assert_eq!(norm.largest, 1000.0);
/// assert!((norm.log_sum - 2f64.ln()).abs() < 1e-7);
/// assert!(!chorus_simd::norm(&[0.0, f32::NEG_INFINITY]).is_finite());
/// ```
#[must_use]
pub fn norm(row: &[f32]) -> Norm {
    instructions().dispatch(NormOf(row))
}

/// log Σ exp of a row of logits; subtracted from a logit it gives that token's log-probability. Relative error about
/// 1e-7. NaN where a logit is not finite, and for an empty row.
#[must_use]
pub fn log_sum_exp(row: &[f32]) -> f64 {
    norm(row).log_sum_exp()
}

/// Vectors that are added up before their sums go on in f64: few enough that f32 loses nothing that counts.
const BLOCK_VECTORS: usize = 4;

struct NormOf<'a>(&'a [f32]);

impl WithSimd for NormOf<'_> {
    type Output = Norm;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Norm {
        let (vectors, rest) = S::as_simd_f32s(self.0);
        let largest = largest_of(simd, Values::from(self.0));
        if !largest.is_finite() {
            return Norm { largest, log_sum: f64::NAN };
        }
        let shift = simd.splat_f32s(largest);
        let exponential = |logits| exp(simd, simd.sub_f32s(logits, shift));
        let (blocks, vectors) = vectors.as_chunks::<BLOCK_VECTORS>();
        let mut sum = 0.0;
        for [a, b, c, d] in blocks {
            let [a, b, c, d] = [exponential(*a), exponential(*b), exponential(*c), exponential(*d)];
            sum += f64::from(simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d))));
        }
        for vector in vectors {
            sum += f64::from(simd.reduce_sum_f32s(exponential(*vector)));
        }
        if !rest.is_empty() {
            // Lanes beyond the row hold zero logits; only the row's own are added.
            let mut lanes = [0.0; 64];
            simd.partial_store_f32s(&mut lanes[..rest.len()], exponential(simd.partial_load_f32s(rest)));
            sum += lanes[..rest.len()].iter().copied().map(f64::from).sum::<f64>();
        }
        Norm { largest, log_sum: sum.ln() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(row: &[f32]) -> f64 {
        let largest = row.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
        row.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
    }

    proptest! {
        #[test]
        fn norms_are_exact_on_every_instruction_set(
            row in prop::collection::vec(-60.0_f32..60.0, 1..300), base in prop::sample::select(vec![0.0f32, 1e4, -1e4]),
        ) {
            let row: Vec<f32> = row.iter().map(|logit| logit + base).collect();
            for instructions in crate::all_instructions() {
                let norm = instructions.dispatch(NormOf(&row));
                prop_assert!((norm.log_sum - exact(&row)).abs() < 3e-7, "{:?}: {:?}", instructions, norm);
                prop_assert!(norm.is_finite() && row.iter().all(|&logit| norm.log_prob(logit) <= 0.0));
            }
        }

        #[test]
        fn a_value_that_is_not_finite_is_found_wherever_it_is(length in 1_usize..70, place in 0_usize..70) {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = vec![1.0; length];
                row[place % length] = value;
                for instructions in crate::all_instructions() {
                    prop_assert!(!instructions.dispatch(NormOf(&row)).is_finite());
                }
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow() {
        assert_eq!(norm(&[f32::MAX, f32::MIN]).log_sum_exp(), f64::from(f32::MAX));
        assert_eq!(log_sum_exp(&[3.5]), 3.5);
        assert!(log_sum_exp(&[]).is_nan());
    }
}
