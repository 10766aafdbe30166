//! exp, σ and tanh of a vector of f32. Relative errors are under 2e-7 against f64, which the tests hold them to.

use std::f32::consts::LOG2_E;

use pulp::Simd;

/// Replaces every value by `function` of it; a last vector that is not full is filled up with zeros.
#[inline(always)]
pub fn map_in_place<S: Simd>(simd: S, values: &mut [f32], function: impl Fn(S::f32s) -> S::f32s) {
    let (vectors, rest) = S::as_mut_simd_f32s(values);
    vectors.iter_mut().for_each(|vector| *vector = function(*vector));
    if !rest.is_empty() {
        simd.partial_store_f32s(rest, function(simd.partial_load_f32s(rest)));
    }
}

/// exp, saturating at both ends: 2^n by the exponent's bits times a polynomial on |r| <= ln 2 / 2. Coefficients:
/// Cephes, `expf`. NaN stays NaN.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    exp_within(simd, clamp(simd, x, LEAST_EXPONENT, 88.0))
}

/// exp of numbers that are not positive, and 0 where it would be below 1.6e-38: the weights of logits beside the largest.
#[inline(always)]
pub fn decay<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let least = simd.splat_f32s(LEAST_EXPONENT);
    let power = exp_within(simd, simd.max_f32s(x, least));
    simd.select_f32s(simd.less_than_f32s(x, least), simd.splat_f32s(0.0), power)
}

/// Replaces every logit by its [`decay`] beside the largest. A loop of its own, since a closure of so many operations is not
/// always compiled into [`map_in_place`].
#[inline(always)]
pub(crate) fn decay_in_place<S: Simd>(simd: S, logits: &mut [f32], largest: f32) {
    let shift = simd.splat_f32s(largest);
    let (vectors, rest) = S::as_mut_simd_f32s(logits);
    for vector in vectors {
        *vector = decay(simd, simd.sub_f32s(*vector, shift));
    }
    if !rest.is_empty() {
        simd.partial_store_f32s(rest, decay(simd, simd.sub_f32s(simd.partial_load_f32s(rest), shift)));
    }
}

/// The least number whose exponential is far enough from the numbers that f32 holds with less precision.
const LEAST_EXPONENT: f32 = -87.0;

/// exp of numbers from -87 to 88.
#[inline(always)]
fn exp_within<S: Simd>(simd: S, bounded: S::f32s) -> S::f32s {
    /// 1.5 · 2^23: adding it rounds to the nearest integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let splat = |value| simd.splat_f32s(value);
    let shifted = simd.mul_add_e_f32s(bounded, splat(LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_e_f32s(n, splat(-LN_2_HIGH), bounded);
    let r = simd.mul_add_e_f32s(n, splat(-LN_2_LOW), r);
    let mut series = splat(1.987_569_1e-4);
    for coefficient in SERIES {
        series = simd.mul_add_e_f32s(series, r, splat(coefficient));
    }
    let one = splat(1.0);
    // The small terms first: then only the last sum rounds at the size of the result.
    let mantissa = simd.add_f32s(simd.mul_add_e_f32s(series, simd.mul_f32s(r, r), r), one);
    let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    // n is added to the exponent of a mantissa between 0.7 and 1.5.
    let power = simd.add_u32s(simd.transmute_u32s_f32s(mantissa), bits);
    simd.transmute_f32s_u32s(power)
}

/// NaN passes: x86's minimum and maximum answer their second argument where one is NaN, NEON's answer NaN.
#[inline(always)]
fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    if S::IS_SCALAR {
        // Rust's minimum and maximum of scalars answer the other argument.
        let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
        return simd.select_f32s(simd.greater_than_f32s(x, high), high, x);
    }
    simd.min_f32s(high, simd.max_f32s(low, x))
}

/// 1 / (1 + exp(-x)). NaN stays NaN.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// tanh: a polynomial near zero, where 1 - 2 / (exp(2x) + 1) would cancel. Coefficients: Cephes, `tanhf`. NaN stays NaN.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const SERIES: [f32; 4] = [2.063_908_8e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1];
    let splat = |value| simd.splat_f32s(value);
    let square = simd.mul_f32s(x, x);
    let mut series = splat(-5.704_988_7e-3);
    for coefficient in SERIES {
        series = simd.mul_add_e_f32s(series, square, splat(coefficient));
    }
    let near = simd.mul_add_e_f32s(simd.mul_f32s(series, square), x, x);
    let one = splat(1.0);
    let size = simd.abs_f32s(x);
    let raised = simd.add_f32s(exp(simd, simd.add_f32s(size, size)), one);
    // Of |x|, since the quotient rounds four times as coarsely where it is above one.
    let far = simd.sub_f32s(one, simd.div_f32s(splat(2.0), raised));
    let sign = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(1 << 31));
    let far = simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(far), sign));
    simd.select_f32s(simd.less_than_f32s(size, splat(0.625)), near, far)
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Decay,
        Sigmoid,
        Tanh,
    }

    struct Each<'a>(Function, &'a [f32]);

    impl WithSimd for Each<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let Each(function, values) = self;
            let mut results = values.to_vec();
            map_in_place(simd, &mut results, |x| match function {
                Function::Exp => exp(simd, x),
                Function::Decay => decay(simd, x),
                Function::Sigmoid => sigmoid(simd, x),
                Function::Tanh => tanh(simd, x),
            });
            results
        }
    }

    fn of(instructions: Arch, function: Function, values: &[f32]) -> Vec<f32> {
        instructions.dispatch(Each(function, values))
    }

    fn relative_error(found: f32, exact: f64) -> f64 {
        (f64::from(found) - exact).abs() / exact.abs().max(1e-30)
    }

    #[test]
    fn every_instruction_set_is_exact_to_2e_minus_7() {
        let values: Vec<f32> = (-800_000..=800_000).map(|step| step as f32 * 1e-4 + 1.7e-5).collect();
        type Exact = fn(f64) -> f64;
        let exact: [(Function, Exact, &str); 3] = [
            (Function::Exp, f64::exp, "exp"),
            (Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), "sigmoid"),
            (Function::Tanh, f64::tanh, "tanh"),
        ];
        for instructions in crate::all_instructions() {
            for (function, exact, name) in exact {
                for (&x, found) in values.iter().zip(of(instructions, function, &values)) {
                    let error = relative_error(found, exact(f64::from(x)));
                    assert!(error < 2e-7, "{instructions:?}: {name}({x}) is off by {error}");
                }
            }
        }
    }

    #[test]
    fn decays_are_exact_and_end_at_zero() {
        let values: Vec<f32> = (0..=880_000).map(|step| step as f32 * -1e-4).collect();
        for instructions in crate::all_instructions() {
            for (&x, found) in values.iter().zip(of(instructions, Function::Decay, &values)) {
                let exact = f64::from(x).exp();
                let is_off = if x < -87.0 { found != 0.0 } else { relative_error(found, exact) > 2e-7 };
                assert!(!is_off, "{instructions:?}: {x} gives {found}");
            }
            let extremes = of(instructions, Function::Decay, &[f32::MIN, f32::NEG_INFINITY, -0.0]);
            assert_eq!(extremes, [0.0, 0.0, 1.0], "{instructions:?}");
        }
    }

    #[test]
    fn extremes_saturate_and_nan_is_not_hidden() {
        for instructions in crate::all_instructions() {
            let values = [1e30, -1e30, f32::NAN, 0.0, 1e-20];
            let [high, low, nan, zero, _] = of(instructions, Function::Sigmoid, &values)[..] else {
                panic!()
            };
            assert!(high == 1.0 && low < 1e-30 && nan.is_nan() && zero == 0.5, "{instructions:?}");
            let tanh = of(instructions, Function::Tanh, &values);
            assert_eq!((tanh[0], tanh[1], tanh[3], tanh[4]), (1.0, -1.0, 0.0, 1e-20));
            assert!(tanh[2].is_nan(), "{instructions:?}");
            let exp = of(instructions, Function::Exp, &values);
            assert!(
                exp[0].is_finite() && exp[1] < 1e-37 && exp[2].is_nan() && exp[3] == 1.0,
                "{instructions:?}"
            );
        }
    }
}
