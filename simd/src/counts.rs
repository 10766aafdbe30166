//! How many rows reach a bound at each token, and what the weights above a bound sum to: plain loops that the compiler
//! vectorises.

use pulp::{Simd, WithSimd};

use crate::instructions;
use crate::scores::total;
use crate::values::Values;

/// Adds one to the count of every value that is at least `bound`. There are as many counts as values.
///
/// ```
/// let mut counts = [0, 4];
/// chorus_simd::count_at_least(&[1.0, 2.0], 2.0, &mut counts);
/// assert_eq!(counts, [0, 5]);
/// ```
pub fn count_at_least<'a>(values: impl Into<Values<'a>>, bound: f32, counts: &mut [u32]) {
    instructions().dispatch(CountAtLeast { values: values.into(), bound, counts });
}

/// What the weights that are above `bound` sum to, block by block of as many weights as `block` says (at least 1), in f64.
/// The order of the sums does not depend on the instruction set. There is a sum for every block.
///
/// ```
/// let mut sums = [0.0; 2];
/// chorus_simd::sums_above(&[0.5, 0.25, 4.0], 0.25, 2, &mut sums);
/// assert_eq!(sums, [0.5, 4.0]);
/// ```
pub fn sums_above(weights: &[f32], bound: f32, block: usize, sums: &mut [f64]) {
    instructions().dispatch(SumsAbove { weights, bound, block, sums });
}

/// How many weights are above `bound`, and what they sum to: in f64, in an order that does not depend on the instruction
/// set.
///
/// ```
/// assert_eq!(chorus_simd::mass_above(&[0.5, 0.25, 4.0], 0.25), (2, 4.5));
/// ```
#[must_use]
pub fn mass_above(weights: &[f32], bound: f32) -> (usize, f64) {
    instructions().dispatch(MassAbove(weights, bound))
}

struct CountAtLeast<'a, 'b> {
    values: Values<'a>,
    bound: f32,
    counts: &'b mut [u32],
}

impl WithSimd for CountAtLeast<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (count, value) in self.counts.iter_mut().zip(self.values.iter()) {
            *count += u32::from(value >= self.bound);
        }
    }
}

struct SumsAbove<'a> {
    weights: &'a [f32],
    bound: f32,
    block: usize,
    sums: &'a mut [f64],
}

impl WithSimd for SumsAbove<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (weights, sum) in self.weights.chunks(self.block).zip(self.sums) {
            *sum = mass_of_those_above(weights, self.bound).1;
        }
    }
}

struct MassAbove<'a>(&'a [f32], f32);

impl WithSimd for MassAbove<'_> {
    type Output = (usize, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, f64) {
        mass_of_those_above(self.0, self.1)
    }
}

/// Sums beside each other, which the compiler keeps in vectors.
const LANES: usize = 32;

#[inline(always)]
fn mass_of_those_above(weights: &[f32], bound: f32) -> (usize, f64) {
    let mut counts = [0_u32; LANES];
    let mut sums = [0.0_f64; LANES];
    let (blocks, rest) = weights.as_chunks::<LANES>();
    for block in blocks {
        for ((count, sum), weight) in counts.iter_mut().zip(&mut sums).zip(block) {
            let is_above = *weight > bound;
            *count += u32::from(is_above);
            *sum += f64::from(if is_above { *weight } else { 0.0 });
        }
    }
    let mut tokens: usize = counts.iter().map(|count| *count as usize).sum();
    let mut mass = total(sums);
    for weight in rest.iter().filter(|weight| **weight > bound) {
        tokens += 1;
        mass += f64::from(*weight);
    }
    (tokens, mass)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_and_sums_are_those_of_plain_loops_on_every_instruction_set(
            values in prop::collection::vec((0_u8..8).prop_map(|value| f32::from(value) / 4.0), 0..700),
            bound in (0_u8..8).prop_map(|value| f32::from(value) / 4.0), block in 1..400_usize,
        ) {
            for instructions in crate::all_instructions() {
                let mut counts = vec![5; values.len()];
                let count = CountAtLeast { values: (&values).into(), bound, counts: &mut counts };
                instructions.dispatch(count);
                prop_assert!(values.iter().zip(&counts).all(|(value, count)| *count == 5 + u32::from(*value >= bound)));
                let mut sums = vec![5.0; values.len().div_ceil(block)];
                instructions.dispatch(SumsAbove { weights: &values, bound, block, sums: &mut sums });
                let above = values.iter().filter(|value| **value > bound);
                let found = instructions.dispatch(MassAbove(&values, bound));
                prop_assert_eq!(found, (above.clone().count(), f64::from(above.sum::<f32>())));
                // Multiples of a quarter: no sum rounds.
                let exact = |weights: &[f32]| weights.iter().filter(|weight| **weight > bound).sum::<f32>();
                prop_assert!(values.chunks(block).zip(&sums).all(|(weights, sum)| f64::from(exact(weights)) == *sum));
            }
        }
    }
}
