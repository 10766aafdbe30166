//! One token drawn from a row of logits.

use crate::Norm;

/// The token at `uniform`, in [0, 1), of the row's cumulative distribution in the order of ids: inverse transform sampling,
/// in f64. `norm` is that of the row. 0 where a logit is not finite.
///
/// ```
/// let row = [0.2f32.ln(), 0.7f32.ln(), 0.1f32.ln()];
/// let draw = |uniform| chorus_simd::draw(&row, chorus_simd::norm(&row), uniform);
/// assert_eq!([0.1, 0.3, 0.95].map(draw), [0, 1, 2]);
/// ```
#[must_use]
pub fn draw(row: &[f32], norm: Norm, uniform: f64) -> usize {
    let weight = |logit: &f32| (f64::from(*logit) - f64::from(norm.largest)).exp();
    let place = uniform * row.iter().map(weight).sum::<f64>();
    let mut sum = 0.0;
    let exceeds = |logit| {
        sum += weight(logit);
        sum > place
    };
    // The sum is the same both times, and the place is below it: some token exceeds it.
    row.iter().position(exceeds).unwrap_or(0)
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
            prop_assert!(cumulative(drawn) <= uniform + 1e-12 && uniform - 1e-12 < cumulative(drawn + 1));
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
    fn the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token() {
        let row = [-2000.0, 0.0, 1.0, -2000.0];
        assert_eq!(draw(&row, norm(&row), 0.0), 1);
        assert_eq!(draw(&row, norm(&row), 1.0 - f64::EPSILON / 2.0), 2);
        assert_eq!(draw(&[f32::MAX; 2], norm(&[f32::MAX; 2]), 0.5), 1);
    }
}
