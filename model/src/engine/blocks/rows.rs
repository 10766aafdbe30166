//! Rows of activations in 8 bits with a scale for each block of the weights, as ggml's Q8_K and Q8_0 have them.
//!
//! x ≈ scale · q with q in -127..=127. Knows nothing about weights but their blocks' lengths.

use pulp::{Arch, Simd, WithSimd};

use super::form::Form;
use crate::engine::eight_bits;
use crate::engine::product::Activations;

/// Rows in 8 bits, filled up with zeros to whole blocks.
#[derive(Debug, Default)]
pub(in crate::engine) struct BlockRows {
    /// `[rows][depth]`.
    values: Vec<i8>,
    /// `[rows][blocks]`.
    scales: Vec<f32>,
    /// Of each part of a block what its values sum to: `[rows][blocks][parts]`.
    sums: Vec<i32>,
    depth: usize,
    blocks: usize,
    parts: usize,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockRow<'a> {
    /// `[blocks][unit]`.
    pub(super) values: &'a [i8],
    /// `[blocks]`.
    pub(super) scales: &'a [f32],
    /// `[blocks][parts]`.
    pub(super) sums: &'a [i32],
}

impl BlockRows {
    /// Quantises the first `count` rows of activations. A block with a value that is not finite gets a scale that is not
    /// finite either: its sums show it.
    pub(super) fn fill(&mut self, rows: Activations<'_>, count: usize, depth: usize, form: Form, arch: Arch) {
        arch.dispatch(Fill { rows: self, from: rows, count, depth, form });
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> BlockRow<'_> {
        let parts = self.blocks * self.parts;
        BlockRow {
            values: &self.values[row * self.depth..][..self.depth],
            scales: &self.scales[row * self.blocks..][..self.blocks],
            sums: &self.sums[row * parts..][..parts],
        }
    }
}

/// [`BlockRows::fill`] in vectors: a group of the activations is one, zero beyond the depth.
struct Fill<'a, 'b> {
    rows: &'a mut BlockRows,
    from: Activations<'b>,
    count: usize,
    depth: usize,
    form: Form,
}

impl WithSimd for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, from, count, depth, form } = self;
        rows.blocks = depth.div_ceil(form.unit);
        rows.depth = rows.blocks * form.unit;
        rows.parts = form.parts();
        rows.values.clear();
        rows.values.resize(count * rows.depth, 0);
        rows.scales.clear();
        for (index, values) in rows.values.chunks_exact_mut(form.unit).enumerate() {
            let (row, block) = (index / rows.blocks, index % rows.blocks);
            rows.scales.push(fill_block(simd, from, row, block * form.unit..depth, values));
        }
        rows.sums.clear();
        rows.sums.extend(rows.values.chunks_exact(form.part).map(sum));
    }
}

/// Quantises the part of a row that begins at the range's start, and returns the scale.
#[inline(always)]
fn fill_block<S: Simd>(
    simd: S,
    from: Activations<'_>,
    row: usize,
    range: std::ops::Range<usize>,
    values: &mut [i8],
) -> f32 {
    let lanes = S::F32_LANES;
    let last = range.end.min(range.start + values.len());
    let groups = range.start / lanes..last.div_ceil(lanes);
    let group = |group: usize| {
        let numbers = &from.values[(group * from.rows + row) * from.stride..][..lanes];
        simd.partial_load_f32s(numbers)
    };
    eight_bits::quantize(simd, groups.map(group), values, |bits| bits as i8)
}

#[inline(always)]
fn sum(values: &[i8]) -> i32 {
    values.iter().map(|&value| i32::from(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantization::Quantization;

    #[test]
    fn what_is_not_finite_shows_in_the_scales_of_its_block() {
        for quantization in Quantization::ALL {
            let form = Form::of(quantization);
            for (value, place) in [(f32::NAN, 0), (f32::INFINITY, 3), (f32::NEG_INFINITY, 17)] {
                let mut values = [1.0; 32];
                values[place] = value;
                for arch in chorus_simd::all_instructions() {
                    let stride = arch.dispatch(crate::engine::weights::Lanes);
                    let mut rows = BlockRows::default();
                    rows.fill(Activations { values: &values, rows: 1, stride }, 1, 18, form, arch);
                    assert!(!rows.row(0).scales[0].is_finite(), "{value} {place} {arch:?}");
                }
            }
        }
    }

    #[test]
    fn rows_are_the_nearest_integers_and_zero_beyond_the_depth() {
        let form = Form::of(Quantization::Q8_0);
        let (count, depth) = (3, 70_usize);
        let value = |row: usize, k: usize| ((row * 131 + k * 7919) % 101) as f32 / 25.0 - 2.0;
        for arch in chorus_simd::all_instructions() {
            let lanes = arch.dispatch(crate::engine::weights::Lanes);
            let mut values = vec![0.0; depth.next_multiple_of(lanes) * count];
            for (row, k) in (0..count).flat_map(|row| (0..depth).map(move |k| (row, k))) {
                values[(k / lanes * count + row) * lanes + k % lanes] = value(row, k);
            }
            let mut rows = BlockRows::default();
            rows.fill(Activations { values: &values, rows: count, stride: lanes }, count, depth, form, arch);
            for row in 0..count {
                let found = rows.row(row);
                assert_eq!((found.values.len(), found.scales.len(), found.sums.len()), (96, 3, 3));
                for (k, &quantized) in found.values.iter().enumerate() {
                    let expected = if k < depth { value(row, k) } else { 0.0 };
                    let off = f32::from(quantized) * found.scales[k / 32] - expected;
                    assert!(off.abs() <= found.scales[k / 32] * 0.5001, "{arch:?} {row} {k}");
                }
                for (sum, values) in found.sums.iter().zip(found.values.chunks(32)) {
                    assert_eq!(*sum, values.iter().map(|&value| i32::from(value)).sum::<i32>());
                }
            }
        }
    }
}
