//! One token drawn from a row of logits.

use pulp::{Simd, WithSimd};

use crate::functions::decay_in_place;
use crate::scores::sum_of;
use crate::values::Values;
use crate::{Norm, instructions};

/// The token at `uniform`, in [0, 1), of the row's cumulative distribution in the order of ids: inverse transform sampling.
/// `norm` is that of the row. 0 where a logit is not finite.
///
/// Exponentials are taken in f32 (relative error 3e-7, and 6e-8 for each unit below the largest logit) and summed in f64, in
/// an order that does not depend on the instruction set: processors with a fused multiply-add draw the same token, to the bit.
///
/// ```
/// let row = [0.2f32.ln(), 0.7f32.ln(), 0.1f32.ln()];
/// let draw = |uniform| chorus_simd::draw(&row, chorus_simd::norm(&row), uniform);
/// assert_eq!([0.1, 0.3, 0.95].map(draw), [0, 1, 2]);
/// ```
#[must_use]
pub fn draw<'a>(row: impl Into<Values<'a>>, norm: Norm, uniform: f64) -> usize {
    if !norm.is_finite() {
        return 0;
    }
    instructions().dispatch(Draw { row: row.into(), largest: norm.largest, uniform })
}

/// Tokens whose weights are computed together.
const PART: usize = 128;
/// Sums that are kept, so that only the tokens of one are read again.
const BLOCKS: usize = 256;

struct Draw<'a> {
    row: Values<'a>,
    largest: f32,
    uniform: f64,
}

impl WithSimd for Draw<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Self { row, largest, uniform } = self;
        // Whole parts, so that a part has the same sum whenever it is computed.
        let block = row.len().div_ceil(BLOCKS).next_multiple_of(PART);
        let mut sums = [0.0; BLOCKS];
        let sums = sums.split_at_mut(row.len().div_ceil(block.max(1)).min(BLOCKS)).0;
        for (index, sum) in sums.iter_mut().enumerate() {
            for part in (0..block).step_by(PART) {
                *sum += sum_of(&weights(simd, row, index * block + part, largest));
            }
        }
        let place = uniform * sums.iter().sum::<f64>();
        let mut sum = 0.0;
        let mut last = 0;
        for (index, of_block) in sums.iter().enumerate() {
            if sum + of_block <= place {
                sum += of_block;
                continue;
            }
            for part in (index * block..(index + 1) * block).step_by(PART) {
                for (token, weight) in weights(simd, row, part, largest).iter().enumerate() {
                    sum += f64::from(*weight);
                    if sum > place {
                        return part + token;
                    }
                    // The sum of a block is rounded in another order: what it promised may be missing by a last bit.
                    last = if *weight > 0.0 { part + token } else { last };
                }
            }
            return last;
        }
        last
    }
}

/// The weights of the tokens from `start` on; 0 beyond the row.
#[inline(always)]
fn weights<S: Simd>(simd: S, row: Values<'_>, start: usize, largest: f32) -> [f32; PART] {
    let mut weights = [f32::NEG_INFINITY; PART];
    for (weight, logit) in weights.iter_mut().zip(row.part(start..start + PART).iter()) {
        *weight = logit;
    }
    decay_in_place(simd, &mut weights, largest);
    weights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::norm;

    proptest! {
        #[test]
        fn a_draw_is_where_the_cumulative_distribution_passes_the_number(
            row in prop::collection::vec((-8_i8..8).prop_map(|value| f32::from(value) / 2.0), 1..60),
            uniform in 0.0_f64..1.0,
        ) {
            let drawn = draw(&row, norm(&row), uniform);
            let mass = |tokens: &[f32]| tokens.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>();
            let cumulative = |tokens: usize| mass(&row[..tokens]) / mass(&row);
            prop_assert!(cumulative(drawn) <= uniform + 1e-6 && uniform - 1e-6 < cumulative(drawn + 1));
        }

        #[test]
        fn draws_over_a_fine_grid_have_the_frequencies_of_the_row(row in prop::collection::vec(-4.0_f32..4.0, 1..20)) {
            const GRID: u32 = 20_000;
            let norm = norm(&row);
            let mut counts = vec![0_u32; row.len()];
            for step in 0..GRID {
                counts[draw(&row, norm, f64::from(step) / f64::from(GRID))] += 1;
            }
            for (count, logit) in counts.iter().zip(&row) {
                let expected = norm.log_prob(*logit).exp();
                prop_assert!((f64::from(*count) / f64::from(GRID) - expected).abs() < 2.0 / f64::from(GRID) + 1e-6);
            }
        }
    }

    #[test]
    fn every_instruction_set_draws_the_same_token_wherever_it_is() {
        for length in [1_usize, 127, 128, 129, 5000, 70_000] {
            let row: Vec<f32> = (0..length).map(|id| (id * 7919 % 1009) as f32 / 100.0).collect();
            let mass = |row: &[f32]| row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>();
            let whole = mass(&row);
            for uniform in (0..50).map(|step| f64::from(step) / 50.0) {
                let draw = |instructions: pulp::Arch| {
                    let row = Values::from(&row);
                    instructions.dispatch(Draw {
                        row,
                        largest: norm(&row.iter().collect::<Vec<_>>()).largest,
                        uniform,
                    })
                };
                let drawn: Vec<usize> = crate::all_instructions().into_iter().map(draw).collect();
                assert!(drawn.iter().all(|token| *token == drawn[0]), "{drawn:?} of {length} at {uniform}");
                let (before, with) = (mass(&row[..drawn[0]]) / whole, mass(&row[..=drawn[0]]) / whole);
                assert!(
                    before <= uniform + 1e-6 && uniform - 1e-6 < with,
                    "{drawn:?} of {length} at {uniform}"
                );
            }
        }
    }

    #[test]
    fn the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token() {
        let row = [-2000.0, 0.0, 1.0, -2000.0];
        assert_eq!(draw(&row, norm(&row), 0.0), 1);
        assert_eq!(draw(&row, norm(&row), 1.0 - f64::EPSILON / 2.0), 2);
        assert_eq!(draw(&[f32::MAX; 2], norm(&[f32::MAX; 2]), 0.5), 1);
    }
}
