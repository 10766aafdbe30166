//! Exponentials of rows of logits, summed over the rows' tokens or over the rows: what every fusion of distributions is
//! made of. One pass, by chunks that stay in the first cache.

use pulp::{Simd, WithSimd};

use crate::functions::decay;
use crate::instructions;
use crate::values::{Values, load, load_rest};

/// Tokens that all rows pass over before the next ones are taken.
pub(crate) const CHUNK: usize = 1024;

/// Vectors whose sum in f32 is not carried on in f32: each of its four parts has sixteen summands, and so an error of no
/// more than 1e-6 of it, as a rule a tenth of that.
const GROUP_VECTORS: usize = 64;

/// A row of logits with its largest, and the factor of its exponentials in a sum over rows.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The logits, finite.
    pub values: Values<'a>,
    /// The largest of them.
    pub largest: f32,
    /// Not negative.
    pub factor: f64,
}

/// A mixture of rows: `out[i]` = Σ_j factor_j · exp(values_j\[i\] - largest_j), and beside it `sums[j]` = Σ_i
/// exp(values_j\[i\] - largest_j). Gives the largest of `out`. Every row has as many values as `out`, and there are as many
/// sums as rows.
///
/// Exponentials are taken in f32. A term is off by 3e-7 of itself and by 6e-8 for each unit that its logit is below the
/// row's largest; those that are more than 87 below it are 0. Sums over tokens go on in f64 (relative error about 1e-7).
///
/// ```
/// use chorus_simd::{Term, mixture};
///
/// // Of the probabilities 0.8, 0.2 and 0.5, 0.5 the mean is 0.65, 0.35.
/// let (one, other) = ([4_f32.ln(), 0.0], [1.0, 1.0]);
/// let terms = [
///     Term { values: (&one).into(), largest: 4_f32.ln(), factor: 0.5 / 1.25 },
///     Term { values: (&other).into(), largest: 1.0, factor: 0.5 / 2.0 },
/// ];
/// let (mut out, mut sums) = ([0.0; 2], [0.0; 2]);
/// let largest = mixture(terms.into_iter(), &mut out, &mut sums);
/// assert!((out[0] - 0.65).abs() < 1e-6 && (out[1] - 0.35).abs() < 1e-6 && largest == out[0]);
/// assert!((sums[0] - 1.25).abs() < 1e-6 && (sums[1] - 2.0).abs() < 1e-6);
/// ```
pub fn mixture<'a>(terms: impl Iterator<Item = Term<'a>> + Clone, out: &mut [f32], sums: &mut [f64]) -> f32 {
    instructions().dispatch(Mixture { terms, out, sums })
}

struct Mixture<'a, T> {
    terms: T,
    out: &'a mut [f32],
    sums: &'a mut [f64],
}

impl<'a, T: Iterator<Item = Term<'a>> + Clone> WithSimd for Mixture<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut largest = 0.0_f32;
        self.sums.fill(0.0);
        for (index, out) in self.out.chunks_mut(CHUNK).enumerate() {
            let tokens = index * CHUNK..index * CHUNK + out.len();
            let mut is_first = true;
            for (term, sum) in self.terms.clone().zip(&mut *self.sums) {
                let term = Term { values: term.values.part(tokens.clone()), ..term };
                *sum += if is_first {
                    exponentials::<S, WRITTEN>(simd, term, out)
                } else {
                    exponentials::<S, ADDED>(simd, term, out)
                };
                is_first = false;
            }
            largest = largest.max(largest_of_finite(simd, out));
        }
        largest
    }
}

/// What becomes of the exponentials: they replace what stands in `out`, or are added to it.
const WRITTEN: bool = false;
const ADDED: bool = true;

/// Writes the exponentials of a chunk of a row, times its factor, or adds them. Gives their sum without the factor.
#[inline(always)]
fn exponentials<S: Simd, const ADD: bool>(simd: S, term: Term<'_>, out: &mut [f32]) -> f64 {
    let (vectors, rest_out) = S::as_mut_simd_f32s(out);
    let (whole, rest) = term.values.split::<S>(vectors.len());
    let (shift, factor) = (simd.splat_f32s(term.largest), simd.splat_f32s(term.factor as f32));
    let mut sum = 0.0;
    let groups = whole.chunks(GROUP_VECTORS * S::F32_LANES);
    for (vectors, values) in vectors.chunks_mut(GROUP_VECTORS).zip(groups) {
        let mut sums = [simd.splat_f32s(0.0); 4];
        let mut quads = vectors.chunks_exact_mut(4);
        let mut values = values.chunks_exact(4 * S::F32_LANES);
        for (quad, values) in (&mut quads).zip(&mut values) {
            for ((out, values), sum) in quad.iter_mut().zip(values.chunks_exact(S::F32_LANES)).zip(&mut sums)
            {
                let power = decay(simd, simd.sub_f32s(load::<S>(values), shift));
                *out =
                    if ADD { simd.mul_add_e_f32s(power, factor, *out) } else { simd.mul_f32s(power, factor) };
                *sum = simd.add_f32s(*sum, power);
            }
        }
        let singles = values.remainder().chunks_exact(S::F32_LANES);
        for ((out, values), sum) in quads.into_remainder().iter_mut().zip(singles).zip(&mut sums) {
            let power = decay(simd, simd.sub_f32s(load::<S>(values), shift));
            *out = if ADD { simd.mul_add_e_f32s(power, factor, *out) } else { simd.mul_f32s(power, factor) };
            *sum = simd.add_f32s(*sum, power);
        }
        sum += f64::from(sum_of(simd, sums));
    }
    if !rest_out.is_empty() {
        // Lanes beyond the row are nobody's: their exponentials are 0.
        let power = decay(simd, simd.sub_f32s(load_rest::<S>(rest, f32::NEG_INFINITY), shift));
        let before = simd.partial_load_f32s(rest_out);
        let after =
            if ADD { simd.mul_add_e_f32s(power, factor, before) } else { simd.mul_f32s(power, factor) };
        simd.partial_store_f32s(rest_out, after);
        sum += f64::from(simd.reduce_sum_f32s(power));
    }
    sum
}

/// The sum of the exponentials of a chunk of a row, without writing them.
#[inline(always)]
pub(crate) fn exponential_sum<S: Simd>(simd: S, values: Values<'_>, largest: f32) -> f64 {
    let shift = simd.splat_f32s(largest);
    let (whole, rest) = values.split::<S>(values.len() / S::F32_LANES);
    let mut sum = 0.0;
    for values in whole.chunks(GROUP_VECTORS * S::F32_LANES) {
        let mut sums = [simd.splat_f32s(0.0); 4];
        let mut quads = values.chunks_exact(4 * S::F32_LANES);
        for quad in &mut quads {
            for (values, sum) in quad.chunks_exact(S::F32_LANES).zip(&mut sums) {
                *sum = simd.add_f32s(*sum, decay(simd, simd.sub_f32s(load::<S>(values), shift)));
            }
        }
        for (values, sum) in quads.remainder().chunks_exact(S::F32_LANES).zip(&mut sums) {
            *sum = simd.add_f32s(*sum, decay(simd, simd.sub_f32s(load::<S>(values), shift)));
        }
        sum += f64::from(sum_of(simd, sums));
    }
    if !rest.is_empty() {
        let power = decay(simd, simd.sub_f32s(load_rest::<S>(rest, f32::NEG_INFINITY), shift));
        sum += f64::from(simd.reduce_sum_f32s(power));
    }
    sum
}

#[inline(always)]
fn sum_of<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> f32 {
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}

/// The largest of numbers that are finite and not negative.
#[inline(always)]
fn largest_of_finite<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let mut high = [simd.splat_f32s(0.0); 4];
    let (quads, singles) = vectors.as_chunks::<4>();
    for quad in quads {
        for (high, vector) in high.iter_mut().zip(quad) {
            *high = simd.max_f32s(*high, *vector);
        }
    }
    for (high, vector) in high.iter_mut().zip(singles) {
        *high = simd.max_f32s(*high, *vector);
    }
    let [a, b, c, d] = high;
    let largest = simd.reduce_max_f32s(simd.max_f32s(simd.max_f32s(a, b), simd.max_f32s(c, d)));
    rest.iter().copied().fold(largest, f32::max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Logits with extremes among them, of any length around that of vectors, groups and chunks.
    fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
        let length = prop_oneof![3 => 1..200_usize, 1 => 1000..2500_usize];
        let logit = prop_oneof![20 => -20.0_f32..20.0, 1 => Just(-200.0), 1 => Just(f32::MIN)];
        (length, 1..6_usize).prop_flat_map(move |(length, rows)| {
            prop::collection::vec(prop::collection::vec(logit.clone(), length), rows)
        })
    }

    fn highest(row: &[f32]) -> f32 {
        row.iter().copied().fold(f32::MIN, f32::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn mixtures_are_those_of_f64_on_every_instruction_set(rows in rows(), base in prop::sample::select(vec![0.0, 1e30])) {
            let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.iter().map(|z| z + base).collect()).collect();
            let factor = |place: usize| [0.5, 0.0, 1e-3, 0.25, 1e-300][place];
            let power = |row: &[f32], id: usize| (f64::from(row[id]) - f64::from(highest(row))).exp();
            for instructions in crate::all_instructions() {
                let terms = rows.iter().enumerate().map(|(place, row)| Term {
                    values: row.into(),
                    largest: highest(row),
                    factor: factor(place),
                });
                // What stands there before is of no interest.
                let (mut out, mut sums) = (vec![7.0; rows[0].len()], vec![7.0; rows.len()]);
                let largest =
                    instructions.dispatch(Mixture { terms, out: &mut out, sums: &mut sums });
                prop_assert_eq!(largest, highest(&out));
                for (id, out) in out.iter().enumerate() {
                    let parts = rows.iter().enumerate();
                    let exact: f64 = parts.map(|(place, row)| factor(place) * power(row, id)).sum();
                    let off = (f64::from(*out) - exact).abs();
                    prop_assert!(off <= 7e-6 * exact + 2e-38, "{:?}: {} is {}", instructions, exact, out);
                }
                for (row, sum) in rows.iter().zip(sums) {
                    let exact: f64 = (0..row.len()).map(|id| power(row, id)).sum();
                    prop_assert!((sum - exact).abs() < 1e-6 * exact, "{:?}: {} is {}", instructions, exact, sum);
                    let alone = instructions.dispatch(SumOf(row.into(), highest(row)));
                    prop_assert!((alone - exact).abs() < 1e-6 * exact);
                }
            }
        }
    }

    struct SumOf<'a>(Values<'a>, f32);

    impl WithSimd for SumOf<'_> {
        type Output = f64;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f64 {
            exponential_sum(simd, self.0, self.1)
        }
    }

    #[test]
    fn equal_columns_are_equal_wherever_they_stand() {
        let row: Vec<f32> = (0..1111_usize).map(|id| [1.5, -0.25, 0.3][id % 3]).collect();
        for instructions in crate::all_instructions() {
            let term = Term { values: (&row).into(), largest: 1.5, factor: 0.3 };
            let (mut out, mut sums) = (vec![0.0; row.len()], [0.0; 2]);
            let terms = [term, Term { factor: 0.1, ..term }].into_iter();
            instructions.dispatch(Mixture { terms, out: &mut out, sums: &mut sums });
            assert!(out.iter().enumerate().all(|(id, value)| *value == out[id % 3]), "{instructions:?}");
        }
    }
}
