//! exp, σ and tanh as branch-free scalars that the compiler vectorises, and loops compiled for several vector widths.
//!
//! Multiplication and addition stay separate, so every width gives the same bits. Knows nothing about models.

/// Defines `pub(crate) fn $name`, which calls the widest of several compilations of `$body` that the processor has.
/// `$body` must be `#[inline(always)]`.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $body($($argument),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has the feature.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}
pub(crate) use dispatched;

dispatched!(
    log_sum_exp_of(row: &[f32]) -> f64 = log_sum_exp_lanes
);

/// log Σ exp of a row of logits, summed in f64; subtracted from a logit it gives that token's log-probability.
/// Relative error about 1e-7. NaN where the row holds NaN; negative infinity for an empty row.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    log_sum_exp_of(row)
}

#[inline(always)]
fn log_sum_exp_lanes(row: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for (largest, &value) in largest.iter_mut().zip(block) {
            *largest = if value > *largest { value } else { *largest };
        }
    }
    let largest = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() {
        return if row.iter().any(|value| value.is_nan()) { f64::NAN } else { f64::from(largest) };
    }
    let mut sums = [0.0f64; LANES];
    for block in blocks {
        for (sum, &value) in sums.iter_mut().zip(block) {
            *sum += f64::from(exp(value - largest));
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(exp(value - largest))).sum();
    f64::from(largest) + (sums.iter().sum::<f64>() + rest).ln()
}

/// 1 / (1 + exp(-x)), relative error about 2e-7. NaN stays NaN.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh, relative error about 2e-7: a polynomial near zero, where 1 - 2 / (exp(2x) + 1) would cancel.
/// Coefficients: Cephes, `tanhf`. NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut series = -5.704_988_7e-3;
    series = series * square + 2.063_908_8e-2;
    series = series * square - 5.373_971_5e-2;
    series = series * square + 1.333_144_2e-1;
    series = series * square - 3.333_328e-1;
    let near = series * square * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.625 { near } else { far }
}

/// exp, relative error about 1e-7, saturating at both ends: 2^n by the exponent's bits times a polynomial on
/// |r| <= ln 2 / 2. Coefficients: Cephes, `expf`. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to the nearest integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    series = series * r + 1.398_199_9e-3;
    series = series * r + 8.333_452e-3;
    series = series * r + 4.166_579_6e-2;
    series = series * r + 1.666_666_5e-1;
    series = series * r + 0.5;
    let mantissa = series * r * r + r + 1.0;
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(found: f32, exact: f64) -> f64 {
        (f64::from(found) - exact).abs() / exact.abs().max(1e-30)
    }

    #[test]
    fn functions_are_exact_to_a_few_units_in_the_last_place() {
        for step in -400_000..=400_000 {
            let x = step as f32 * 2e-4;
            let exact = f64::from(x);
            assert!(relative_error(exp(x), exact.exp()) < 3e-7, "exp({x})");
            assert!(relative_error(sigmoid(x), 1.0 / (1.0 + (-exact).exp())) < 4e-7, "sigmoid({x})");
            if x != 0.0 {
                assert!(relative_error(tanh(x), exact.tanh()) < 4e-7, "tanh({x})");
            }
        }
    }

    #[test]
    fn extremes_saturate_and_nan_is_not_hidden() {
        assert_eq!([sigmoid(1e30), tanh(1e30), tanh(-1e30), tanh(0.0)], [1.0, 1.0, -1.0, 0.0]);
        assert!(sigmoid(-1e30) < 1e-30);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!(tanh(1e-20), 1e-20);
    }

    #[test]
    fn log_sum_exp_is_exact_and_does_not_overflow() {
        let row: Vec<f32> = (0..1003).map(|index| ((index * 37) % 101) as f32 * 0.3 + 200.0).collect();
        let exact = row.iter().map(|&value| (f64::from(value) - 230.0).exp()).sum::<f64>().ln() + 230.0;
        assert!((log_sum_exp(&row) - exact).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[3.5]), 3.5);
        assert!(log_sum_exp(&[0.0, f32::NAN]).is_nan());
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 20]), f64::NEG_INFINITY);
    }
}
