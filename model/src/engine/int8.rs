//! Products with weights of 8 bits: a scale for each column, activations quantised row by row on the way, sums exact in
//! 32-bit integers.
//!
//! w ≈ scale · q with q in -127..=127; x ≈ scale' · (u - 128) with u in 1..=255, so that a sum of products is
//! scale · scale' · (Σ u q - 128 Σ q), of which the last term is known beforehand. Integer sums have no order, so a row
//! has the same bits in any batch. Knows nothing about LSTMs.

use bytemuck::cast_slice_mut;
use candle_core::{Result, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};

use super::eight_bits;
use super::kernel::{Kernel, LARGEST_GROUP};
use super::panels::{Aligned, Columns, VECTORS, padded};
use super::product::{Activations, Sums};

mod kernels;

/// The largest depth whose sums fit 32 bits: 255 · 127 · depth < 2^31.
const MAX_DEPTH: usize = (i32::MAX / (255 * 127)) as usize;

/// What u is where x is zero.
const ZERO: i32 = 128;

/// Weights `[panel][depth / group][4][lanes][group]`, in 8 bits.
#[derive(Debug)]
pub(super) struct Int8Panels {
    values: Aligned<i8>,
    /// Of each column, `[panel][4][lanes]`.
    scales: Aligned<f32>,
    /// -128 Σ q of each column.
    starts: Aligned<i32>,
    kernel: Kernel,
    instructions: Arch,
    depth: usize,
    lanes: usize,
}

/// One panel as a kernel reads it.
#[derive(Debug, Clone, Copy)]
struct Panel<'a> {
    /// `[depth / group][4][lanes][group]`.
    values: &'a [i8],
    /// `[4][lanes]`.
    scales: &'a [f32],
    /// `[4][lanes]`.
    starts: &'a [i32],
}

/// Rows of activations in 8 bits.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    /// `[rows][depth]`, the depth in whole groups of any kernel.
    values: Vec<u8>,
    scales: Vec<f32>,
    depth: usize,
}

impl Int8Panels {
    /// Quantises and packs a weight `[out, in]`.
    pub(super) fn pack(weight: &Tensor, columns: Columns, lanes: usize, instructions: Arch) -> Result<Self> {
        Self::pack_for(weight, columns, lanes, instructions, Kernel::of(instructions))
    }

    fn pack_for(
        weight: &Tensor,
        columns: Columns,
        lanes: usize,
        instructions: Arch,
        kernel: Kernel,
    ) -> Result<Self> {
        let (_, depth) = weight.dims2()?;
        if depth > MAX_DEPTH {
            bail!("a sum of {depth} products of 8 bits does not fit 32 bits; allowed is {MAX_DEPTH}");
        }
        let weight = weight.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let (group, width) = (kernel.group(), VECTORS * lanes);
        let size = depth.next_multiple_of(group) * width;
        let all = columns.panels(lanes) * width;
        let mut panels = Self {
            values: aligned_vec::avec!([64]| 0; columns.panels(lanes) * size),
            scales: aligned_vec::avec!([64]| 0.0; all),
            starts: aligned_vec::avec!([64]| 0; all),
            kernel,
            instructions,
            depth,
            lanes,
        };
        for (column, row) in columns.rows(lanes).enumerate() {
            let Some(row) = row else { continue };
            let row = &weight[row * depth..][..depth];
            let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let scale = largest / 127.0;
            let (panel, place) = (column / width, column % width);
            let values = &mut panels.values[panel * size..][..size];
            let mut sum = 0;
            for (k, &weight) in row.iter().enumerate() {
                // A column of zeros has no scale.
                let quantized = if scale > 0.0 { (weight / scale).round() as i8 } else { 0 };
                values[(k / group * width + place) * group + k % group] = quantized;
                sum += i32::from(quantized);
            }
            panels.scales[column] = scale;
            panels.starts[column] = -ZERO * sum;
        }
        Ok(panels)
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn instructions(&self) -> Arch {
        self.instructions
    }

    /// Bytes of all weights, scales and padding included.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice()) + 2 * size_of_val(self.scales.as_slice())
    }

    /// `sums[row] += rows[first + row] · panel` for as many rows as there are sums.
    #[inline(always)]
    pub(super) fn add_product<S: Simd>(
        &self,
        sums: &mut [Sums<S>],
        rows: &QuantizedRows,
        first: usize,
        panel: usize,
    ) {
        let width = VECTORS * self.lanes;
        let size = self.depth.next_multiple_of(self.kernel.group()) * width;
        let panel = Panel {
            values: &self.values[panel * size..][..size],
            scales: &self.scales[panel * width..][..width],
            starts: &self.starts[panel * width..][..width],
        };
        self.kernel.add_product(cast_slice_mut(sums), self.lanes, rows, first, panel);
    }
}

impl QuantizedRows {
    /// Quantises the first `count` rows of activations. A row with a value that is not finite gets a scale that is
    /// not finite either: its sums show it.
    pub(super) fn fill(&mut self, rows: Activations<'_>, count: usize, depth: usize, instructions: Arch) {
        instructions.dispatch(Fill { quantized: self, rows, count, depth });
    }

    /// A row's numbers and its scale.
    #[inline(always)]
    fn row(&self, row: usize) -> (&[u8], f32) {
        (&self.values[row * self.depth..][..self.depth], self.scales[row])
    }
}

/// [`QuantizedRows::fill`] in vectors: a group of the activations is one, zero beyond the depth.
struct Fill<'a, 'b> {
    quantized: &'a mut QuantizedRows,
    rows: Activations<'b>,
    count: usize,
    depth: usize,
}

impl WithSimd for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { quantized, rows, count, depth } = self;
        let lanes = S::F32_LANES;
        quantized.depth = padded(depth, lanes).next_multiple_of(LARGEST_GROUP);
        quantized.values.clear();
        quantized.values.resize(count * quantized.depth, ZERO as u8);
        quantized.scales.clear();
        for row in 0..count {
            let group = |group: usize| {
                let values = &rows.values[(group * rows.rows + row) * rows.stride..][..lanes];
                simd.partial_load_f32s(values)
            };
            let slots = &mut quantized.values[row * quantized.depth..][..quantized.depth];
            let slot = |bits| (bits as u8).wrapping_add(ZERO as u8);
            let scale = eight_bits::quantize(simd, (0..depth.div_ceil(lanes)).map(group), slots, slot);
            quantized.scales.push(scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::cast_slice;
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    struct Multiply<'a> {
        panels: &'a Int8Panels,
        rows: &'a QuantizedRows,
        count: usize,
        panel: usize,
    }

    impl WithSimd for Multiply<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut sums = vec![[simd.splat_f32s(1.0); VECTORS]; self.count];
            self.panels.add_product::<S>(&mut sums, self.rows, 0, self.panel);
            cast_slice(&sums).to_vec()
        }
    }

    /// Every kernel that can run here, with the instruction set whose panels it reads.
    fn kernels() -> Vec<(Arch, Kernel)> {
        let all = chorus_simd::all_instructions();
        all.into_iter()
            .flat_map(|arch| Kernel::all_of(arch).into_iter().map(move |kernel| (arch, kernel)))
            .collect()
    }

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_kernel_equals_the_sums_of_the_definition(
            count in 1_usize..15, depth in 1_usize..90, out in 1_usize..150, seed in 0_usize..1000,
        ) {
            let weight = values(out * depth, seed);
            let tensor = Tensor::from_vec(weight.clone(), (out, depth), &Device::Cpu).unwrap();
            let input = values(count * depth, seed + 1);
            for (arch, kernel) in kernels() {
                let lanes = arch.dispatch(super::super::weights::Lanes);
                let columns = Columns::InOrder { count: out };
                let panels = Int8Panels::pack_for(&tensor, columns, lanes, arch, kernel).unwrap();
                let mut activations = vec![0.0; depth.next_multiple_of(lanes) * count];
                for (row, input) in input.chunks(depth).enumerate() {
                    for (k, value) in input.iter().enumerate() {
                        activations[(k / lanes * count + row) * lanes + k % lanes] = *value;
                    }
                }
                let rows = Activations { values: &activations, rows: count, stride: lanes };
                let mut quantized = QuantizedRows::default();
                quantized.fill(rows, count, depth, arch);
                for panel in 0..columns.panels(lanes) {
                    let sums = arch.dispatch(Multiply { panels: &panels, rows: &quantized, count, panel });
                    for (row, sums) in sums.chunks(VECTORS * lanes).enumerate() {
                        for (place, &sum) in sums.iter().enumerate() {
                            let column = panel * VECTORS * lanes + place;
                            if column >= out {
                                prop_assert_eq!(sum, 1.0);
                                continue;
                            }
                            let weights = &weight[column * depth..][..depth];
                            let input = &input[row * depth..][..depth];
                            let largest = |values: &[f32]| values.iter().fold(0f32, |most, v| most.max(v.abs()));
                            let (scale, other) = (largest(weights) / 127.0, largest(input) / 127.0);
                            // The definition, in exact integers.
                            let exact: i64 = weights.iter().zip(input).map(|(w, x)| {
                                let quantize = |value: f32, scale: f32| (value / scale).round_ties_even() as i64;
                                let w = if scale > 0.0 { (w / scale).round() as i64 } else { 0 };
                                w * if other > 0.0 { quantize(*x, other) } else { 0 }
                            }).sum();
                            let exact = 1.0 + exact as f64 * f64::from(scale) * f64::from(other);
                            // One step of one input, where the two ways of dividing round to different sides.
                            let step = f64::from(other) * f64::from(largest(weights)) * 1.01;
                            prop_assert!((f64::from(sum) - exact).abs() <= 1e-5 + step * 2.0, "{:?} {} {}", kernel, sum, exact);
                            let ideal: f64 = weights.iter().zip(input).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                            let bound = 1e-5 + depth as f64 * (f64::from(largest(weights)) * f64::from(other) + f64::from(largest(input)) * f64::from(scale)) * 0.51;
                            prop_assert!((f64::from(sum) - 1.0 - ideal).abs() <= bound, "{:?} {} {}", kernel, sum, ideal);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows_in_the_sums() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut rows = QuantizedRows::default();
            for place in [0, 3, 17] {
                let mut values = [1.0; 32];
                values[place] = value;
                for arch in chorus_simd::all_instructions() {
                    let stride = arch.dispatch(super::super::weights::Lanes);
                    rows.fill(Activations { values: &values, rows: 1, stride }, 1, 18, arch);
                    assert!(!rows.row(0).1.is_finite(), "{value} {place} {arch:?}");
                }
            }
        }
    }
}
