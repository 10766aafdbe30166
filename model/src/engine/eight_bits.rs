//! Activations in 8 bits: x ≈ scale · q with q in -127..=127.
//!
//! Knows nothing about the weights that they are multiplied with, nor about where they stand.

use bytemuck::cast_slice;
use pulp::Simd;

/// Adding 1.5 · 2^23 rounds to the nearest integer, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// Quantises vectors to as many slots, and returns their scale: not a finite one where a value is not finite. `slot` makes
/// one of an integer's bits.
#[inline(always)]
pub(super) fn quantize<S: Simd, T>(
    simd: S,
    vectors: impl Iterator<Item = S::f32s> + Clone,
    slots: &mut [T],
    slot: impl Fn(u32) -> T,
) -> f32 {
    let (mut largest, mut off) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for vector in vectors.clone() {
        largest = simd.max_f32s(largest, simd.abs_f32s(vector));
        // Zero, and NaN where a value is not finite, which a maximum need not keep.
        off = simd.mul_add_e_f32s(vector, simd.splat_f32s(0.0), off);
    }
    let (largest, off) = (simd.reduce_max_f32s(largest), simd.reduce_sum_f32s(off));
    let inverse = simd.splat_f32s(if largest > 0.0 { 127.0 / largest } else { 0.0 });
    for (slots, vector) in slots.chunks_mut(S::F32_LANES).zip(vectors) {
        // Rounded twice on every processor, also on those that could do with one: ties go the same way on all.
        let shifted = simd.add_f32s(simd.mul_f32s(vector, inverse), simd.splat_f32s(ROUND));
        for (place, bits) in slots.iter_mut().zip(cast_slice::<_, u32>(&[shifted])) {
            *place = slot(*bits);
        }
    }
    largest / 127.0 + off
}
