//! Scores made of several rows of logits, in f64, and their softmax. The scores are plain loops that the compiler vectorises:
//! each is the same sum in the same order on every instruction set, so it has the same bits.

use pulp::{Simd, WithSimd};

use crate::exponentials::{CHUNK, Term, exponential_sum};
use crate::functions::decay_in_place;
use crate::instructions;

/// The weighted sum of rows: `scores[i]` = Σ_j factor_j · values_j\[i\], and beside it the sums of the rows' exponentials, as
/// [`mixture`](crate::mixture) gives them. Every row has as many values as there are scores; terms of factor 0 add nothing.
pub fn weighted_sum<'a>(terms: impl Iterator<Item = Term<'a>> + Clone, scores: &mut [f64], sums: &mut [f64]) {
    instructions().dispatch(Scores::<'_, _, SUM> { terms, scores, sums });
}

/// The largest value of each column: `scores[i]` = max_j values_j\[i\], and beside it the sums of the rows' exponentials, as
/// [`mixture`](crate::mixture) gives them. Every row has as many values as there are scores; factors are not looked at.
pub fn maximum<'a>(terms: impl Iterator<Item = Term<'a>> + Clone, scores: &mut [f64], sums: &mut [f64]) {
    instructions().dispatch(Scores::<'_, _, MAXIMUM> { terms, scores, sums });
}

/// The softmax of scores before it is normalised: `out[i]` = exp(scores\[i\] - largest), with the largest and the sum.
/// Exponentials in f32 as [`mixture`](crate::mixture) has them; the sum's relative error is about 1e-7.
///
/// ```
/// let mut out = [0.0; 3];
/// let (largest, sum) = chorus_simd::softmax(&[1e300, 1e300, -1e300], &mut out);
/// assert_eq!((largest, sum, out), (1e300, 2.0, [1.0, 1.0, 0.0]));
/// ```
#[must_use]
pub fn softmax(scores: &[f64], out: &mut [f32]) -> (f64, f64) {
    instructions().dispatch(Softmax { scores, out })
}

const SUM: bool = false;
const MAXIMUM: bool = true;

struct Scores<'a, T, const MAX: bool> {
    terms: T,
    scores: &'a mut [f64],
    sums: &'a mut [f64],
}

impl<'a, T: Iterator<Item = Term<'a>> + Clone, const MAX: bool> WithSimd for Scores<'_, T, MAX> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.sums.fill(0.0);
        for (index, scores) in self.scores.chunks_mut(CHUNK).enumerate() {
            let tokens = index * CHUNK..index * CHUNK + scores.len();
            scores.fill(if MAX { f64::NEG_INFINITY } else { 0.0 });
            for (term, sum) in self.terms.clone().zip(&mut *self.sums) {
                let values = term.values.part(tokens.clone());
                *sum += exponential_sum(simd, values, term.largest);
                for (score, value) in scores.iter_mut().zip(values.iter()) {
                    let value = f64::from(value);
                    *score = match MAX {
                        true if value > *score => value,
                        true => *score,
                        false => *score + term.factor * value,
                    };
                }
            }
        }
    }
}

struct Softmax<'a> {
    scores: &'a [f64],
    out: &'a mut [f32],
}

impl WithSimd for Softmax<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
        let largest = largest_of(self.scores);
        let mut sum = 0.0;
        for (scores, out) in self.scores.chunks(CHUNK).zip(self.out.chunks_mut(CHUNK)) {
            for (out, score) in out.iter_mut().zip(scores) {
                *out = (score - largest) as f32;
            }
            decay_in_place(simd, out, 0.0);
            sum += sum_of(out);
        }
        (largest, sum)
    }
}

/// Several maxima beside each other, which the compiler keeps in vectors.
#[inline(always)]
fn largest_of(scores: &[f64]) -> f64 {
    let mut high = [f64::NEG_INFINITY; 32];
    let (blocks, rest) = scores.as_chunks::<32>();
    for block in blocks {
        for (high, score) in high.iter_mut().zip(block) {
            *high = if *score > *high { *score } else { *high };
        }
    }
    high.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The sum of f32 in f64, in an order that does not depend on the instruction set.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32]) -> f64 {
    let mut sums = [0.0; 32];
    let (blocks, rest) = values.as_chunks::<32>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += f64::from(*value);
        }
    }
    total(sums) + rest.iter().copied().map(f64::from).sum::<f64>()
}

/// The sum of sums that were formed beside each other: halves upon each other, which vectors can do.
#[inline(always)]
pub(crate) fn total(mut sums: [f64; 32]) -> f64 {
    for half in [16, 8, 4, 2, 1] {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
    }
    let [total, ..] = sums;
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn scores_are_exact_and_their_softmax_is_that_of_f64(
            rows in (1..2500_usize, 1..5_usize).prop_flat_map(|(length, rows)| {
                let logit = prop_oneof![20 => -30.0_f32..30.0, 1 => Just(f32::MIN), 1 => Just(f32::MAX)];
                prop::collection::vec(prop::collection::vec(logit, length), rows)
            }),
        ) {
            let highest = |row: &[f32]| row.iter().copied().fold(f32::MIN, f32::max);
            let terms = || rows.iter().enumerate().map(|(place, row)| Term {
                values: row.into(),
                largest: highest(row),
                factor: [0.5, 0.25, 0.0, 0.1][place],
            });
            let length = rows[0].len();
            for instructions in crate::all_instructions() {
                let (mut scores, mut sums) = (vec![3.0; length], vec![3.0; rows.len()]);
                let sum = Scores::<'_, _, SUM> { terms: terms(), scores: &mut scores, sums: &mut sums };
                instructions.dispatch(sum);
                for (id, score) in scores.iter().enumerate() {
                    let exact = terms().fold(0.0, |sum, term| sum + term.factor * f64::from(term.values.get(id).unwrap()));
                    prop_assert_eq!(score.to_bits(), exact.to_bits());
                }
                for (row, sum) in rows.iter().zip(&sums) {
                    let power = |z: &f32| (f64::from(*z) - f64::from(highest(row))).exp();
                    let exact: f64 = row.iter().map(power).sum();
                    prop_assert!((sum - exact).abs() < 1e-6 * exact);
                }
                let mut out = vec![3.0; length];
                let (largest, sum) = instructions.dispatch(Softmax { scores: &scores, out: &mut out });
                prop_assert_eq!(largest, scores.iter().copied().fold(f64::MIN, f64::max));
                let exact: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                prop_assert!((sum - exact).abs() < 5e-7 * exact, "{} is {}", exact, sum);
                for (score, out) in scores.iter().zip(out) {
                    let exact = (score - largest).exp();
                    prop_assert!((f64::from(out) - exact).abs() <= 6e-6 * exact + 2e-38);
                }
                let maximum = Scores::<'_, _, MAXIMUM> { terms: terms(), scores: &mut scores, sums: &mut sums };
                instructions.dispatch(maximum);
                for (id, score) in scores.iter().enumerate() {
                    let exact = rows.iter().map(|row| row[id]).fold(f32::MIN, f32::max);
                    prop_assert_eq!(*score, f64::from(exact));
                }
            }
        }
    }
}
