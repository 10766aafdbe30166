//! The natural logarithm of a vector of f32, and powers made of it.

use std::f32::consts::FRAC_1_SQRT_2;

use pulp::{Simd, WithSimd};

use crate::functions::decay;
use crate::instructions;

/// ln of positive, normal numbers: an exponent and a polynomial on [√½ - 1, √2 - 1]. The relative error is below 3e-7
/// against f64. Coefficients: Cephes, `logf`. What is below the least normal number counts as that.
#[inline(always)]
pub fn ln<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// 2^23, whose bits are an exponent above an integer that stands in the lowest bits.
    const INTEGERS: f32 = 8_388_608.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 8] = [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let (splat, bits) = (|value| simd.splat_f32s(value), |value| simd.splat_u32s(value));
    let x = simd.max_f32s(x, splat(f32::MIN_POSITIVE));
    // Counted from √½, so that the mantissa is between √½ and √2.
    let shifted = simd.sub_u32s(simd.transmute_u32s_f32s(x), bits(FRAC_1_SQRT_2.to_bits()));
    let biased = simd.add_u32s(shifted, bits(127 << 23));
    let exponent = simd.wrapping_dyn_shr_u32s(biased, bits(23));
    let integer = simd.transmute_f32s_u32s(simd.or_u32s(exponent, bits(INTEGERS.to_bits())));
    let n = simd.sub_f32s(integer, splat(INTEGERS + 127.0));
    let mantissa = simd.add_u32s(simd.and_u32s(shifted, bits((1 << 23) - 1)), bits(FRAC_1_SQRT_2.to_bits()));
    let r = simd.sub_f32s(simd.transmute_f32s_u32s(mantissa), splat(1.0));
    let mut series = splat(7.037_683_6e-2);
    for coefficient in SERIES {
        series = simd.mul_add_e_f32s(series, r, splat(coefficient));
    }
    let square = simd.mul_f32s(r, r);
    let small = simd.mul_f32s(simd.mul_f32s(series, r), square);
    let small = simd.mul_add_e_f32s(n, splat(LN_2_LOW), small);
    let small = simd.mul_add_e_f32s(square, splat(-0.5), small);
    simd.mul_add_e_f32s(n, splat(LN_2_HIGH), simd.add_f32s(r, small))
}

/// Replaces every value v by (v / whole)^exponent, and values that are below `least` by 0. `whole` is the largest of them
/// and at most 3e38, `least` at least 1e-37, the exponent positive.
///
/// The relative error is below 3e-7 (exponent + 1) + 1e-7 |ln of the result|.
///
/// ```
/// let mut values = [0.5, 0.25, 1e-30];
/// chorus_simd::power(&mut values, 0.5, 2.0, 1e-20);
/// assert!((values[1] - 0.25).abs() < 1e-6);
/// assert_eq!([values[0], values[2]], [1.0, 0.0]);
/// ```
pub fn power(values: &mut [f32], whole: f32, exponent: f32, least: f32) {
    instructions().dispatch(Power { values, whole, exponent, least });
}

struct Power<'a> {
    values: &'a mut [f32],
    whole: f32,
    exponent: f32,
    least: f32,
}

impl WithSimd for Power<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let splat = |value| simd.splat_f32s(value);
        let (whole, exponent, least) = (splat(self.whole), splat(self.exponent), splat(self.least));
        let (vectors, rest) = S::as_mut_simd_f32s(self.values);
        for vector in vectors {
            *vector = power_of(simd, *vector, whole, exponent, least);
        }
        if !rest.is_empty() {
            let powers = power_of(simd, simd.partial_load_f32s(rest), whole, exponent, least);
            simd.partial_store_f32s(rest, powers);
        }
    }
}

#[inline(always)]
fn power_of<S: Simd>(simd: S, values: S::f32s, whole: S::f32s, exponent: S::f32s, least: S::f32s) -> S::f32s {
    let logarithm = ln(simd, simd.div_f32s(values, whole));
    let zero = simd.splat_f32s(0.0);
    // Nothing is above the largest by more than rounding.
    let scaled = simd.min_f32s(simd.mul_f32s(logarithm, exponent), zero);
    simd.select_f32s(simd.less_than_f32s(values, least), zero, decay(simd, scaled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map_in_place;

    struct LnOf<'a>(&'a mut [f32]);

    impl WithSimd for LnOf<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            map_in_place(simd, self.0, |x| ln(simd, x));
        }
    }

    #[test]
    fn logarithms_are_exact_to_3e_minus_7_on_every_instruction_set() {
        // All exponents with mantissas between them, and the neighbourhood of one, where the logarithm is nearly 0.
        let exponents = (0x0080_0000_u32..0x7F80_0000).step_by(4999).map(f32::from_bits);
        let near_one = (1.0_f32.to_bits() - 2000..1.0_f32.to_bits() + 2000).map(f32::from_bits);
        let values: Vec<f32> = exponents.chain(near_one).collect();
        for instructions in crate::all_instructions() {
            let mut found = values.clone();
            instructions.dispatch(LnOf(&mut found));
            for (x, found) in values.iter().zip(found) {
                let exact = f64::from(*x).ln();
                let error = (f64::from(found) - exact).abs();
                assert!(error <= 3e-7 * exact.abs(), "{instructions:?}: ln({x}) is {found}");
            }
        }
    }

    #[test]
    fn powers_are_those_of_f64_on_every_instruction_set() {
        let values: Vec<f32> = (0..5000_u16).map(|step| (-f32::from(step) / 75.0).exp()).collect();
        for instructions in crate::all_instructions() {
            for (exponent, least) in [(0.25, 1e-20), (1.0, 1e-37), (1.25, 1e-37), (10.0, 1e-30)] {
                let mut found = values.clone();
                instructions.dispatch(Power { values: &mut found, whole: values[0], exponent, least });
                for (value, found) in values.iter().zip(found) {
                    let exact = f64::from(*value).powf(f64::from(exponent));
                    if *value < least || exact < 1e-38 {
                        assert!(found == 0.0 || *value >= least && found < 2e-38, "{value}^{exponent}");
                        continue;
                    }
                    let error = (f64::from(found) / exact - 1.0).abs();
                    let most = 3e-7 * (f64::from(exponent) + 1.0) - 1e-7 * exact.ln();
                    assert!(error < most || exact < 2e-38, "{instructions:?}: {value}^{exponent} is {found}");
                }
            }
        }
    }
}
