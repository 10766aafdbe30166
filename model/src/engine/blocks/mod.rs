//! Products with weights in ggml's blocks, rearranged into panels so that a product reads them from front to back in the
//! bits that they have in a file.
//!
//! Codes of less than 8 bits are unpacked a block of a panel at a time, into bytes that stay in the first cache while all
//! rows pass over them. candle's own products take a row and a column at a time, and unpack a column for every row; those
//! that don't keep a second, unpacked copy of the weights, allocate at every call, and sum a single row in another order
//! than several. Knows nothing about LSTMs.

mod form;
mod kernels;
mod layout;
mod rows;

use std::cell::RefCell;

use bytemuck::cast_slice_mut;
use candle_core::{Result, bail};
use half::f16;
use pulp::{Arch, Simd};

use super::kernel::Kernel;
use super::panels::{Aligned, Columns, VECTORS};
use super::product::{Activations, Sums};
use crate::quantization::Quantization;
use form::{Form, LARGEST_UNIT};
use kernels::Run;
use layout::Packing;

pub(super) use rows::BlockRows;

/// Weights `[panel][block]`, each block that of all columns of the panel.
#[derive(Debug)]
pub(super) struct BlockPanels {
    /// `[unit / group][4][lanes][group]` of a block, or half of it where two groups share a byte.
    codes: Aligned<u8>,
    /// The codes' high bits: a quarter of it, where they have some.
    high: Aligned<u8>,
    /// `[4][lanes]`.
    factors: Aligned<f16>,
    /// `[parts][4][lanes]`, where parts have scales.
    scales: Aligned<i8>,
    /// `[4][lanes]`, where parts have minimums.
    least: Aligned<f16>,
    /// `[parts][4][lanes]`, where parts have minimums.
    minimums: Aligned<i8>,
    form: Form,
    kernel: Kernel,
    instructions: Arch,
    depth: usize,
    lanes: usize,
}

/// A matrix as it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    /// Every row's blocks, one after the other, as ggml lays them out.
    pub(super) rows: &'a [u8],
    pub(super) quantization: Quantization,
    /// Numbers of a row.
    pub(super) depth: usize,
}

/// The unpacked codes of a panel's block.
#[repr(align(64))]
struct Codes([u8; LARGEST_UNIT * VECTORS * 16]);

thread_local! {
    static CODES: RefCell<Codes> = const { RefCell::new(Codes([0; LARGEST_UNIT * VECTORS * 16])) };
}

impl BlockPanels {
    /// Rearranges a matrix for an instruction set.
    pub(super) fn pack(
        stored: Stored<'_>,
        columns: Columns,
        lanes: usize,
        instructions: Arch,
    ) -> Result<Self> {
        Self::pack_for(stored, columns, lanes, instructions, Kernel::of_blocks(instructions))
    }

    fn pack_for(
        stored: Stored<'_>,
        columns: Columns,
        lanes: usize,
        instructions: Arch,
        kernel: Kernel,
    ) -> Result<Self> {
        let Stored { rows, quantization, depth } = stored;
        let form = Form::of(quantization);
        let row_bytes = form.row_bytes(depth);
        let width = VECTORS * lanes;
        let count = columns.panels(lanes) * depth.div_ceil(form.unit);
        let (codes, high) = Packing::of(quantization).bytes(form.unit);
        let scales = if form.has_scales() { form.parts() } else { 0 };
        let (least, minimums) = if form.has_minimums() { (1, form.parts()) } else { (0, 0) };
        let mut panels = Self {
            codes: aligned_vec::avec!([64]| 0; count * codes * width),
            high: aligned_vec::avec!([64]| 0; count * high * width),
            factors: aligned_vec::avec!([64]| f16::ZERO; count * width),
            scales: aligned_vec::avec!([64]| 0; count * scales * width),
            least: aligned_vec::avec!([64]| f16::ZERO; count * least * width),
            minimums: aligned_vec::avec!([64]| 0; count * minimums * width),
            form,
            kernel,
            instructions,
            depth,
            lanes,
        };
        for (column, row) in columns.rows(lanes).enumerate() {
            let Some(row) = row else { continue };
            let Some(row) = rows.get(row * row_bytes..(row + 1) * row_bytes) else {
                bail!("{} bytes don't hold row {row} of a matrix in {quantization}", rows.len());
            };
            for (index, block) in form.blocks(row).enumerate() {
                let place = column / width * panels.blocks() + index;
                panels.set(place, column % width, &block);
            }
        }
        Ok(panels)
    }

    /// Blocks of a row.
    fn blocks(&self) -> usize {
        self.depth.div_ceil(self.form.unit)
    }

    fn width(&self) -> usize {
        VECTORS * self.lanes
    }

    /// The first `count` rows of activations in the form that these weights multiply.
    pub(super) fn fill(&self, rows: &mut BlockRows, activations: Activations<'_>, count: usize) {
        rows.fill(activations, count, self.depth, self.form, self.instructions);
    }

    /// Bytes of all weights, scales and padding included.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.codes.as_slice())
            + size_of_val(self.high.as_slice())
            + size_of_val(self.factors.as_slice())
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.least.as_slice())
            + size_of_val(self.minimums.as_slice())
    }

    /// `sums[row] += rows[first + row] · panel` for as many rows as there are sums.
    #[inline(always)]
    pub(super) fn add_product<S: Simd>(
        &self,
        sums: &mut [Sums<S>],
        rows: &BlockRows,
        first: usize,
        panel: usize,
    ) {
        self.add_panel(cast_slice_mut(sums), rows, first, panel);
    }

    fn add_panel(&self, sums: &mut [f32], rows: &BlockRows, first: usize, panel: usize) {
        let blocks = self.blocks();
        let size = self.form.unit * self.width();
        if Packing::of(self.form.quantization) == Packing::Bytes {
            let run =
                self.run(panel * blocks, 0, blocks, &self.codes[panel * blocks * size..][..blocks * size]);
            return self.kernel.add_blocks(sums, self.lanes, rows, first, run);
        }
        CODES.with_borrow_mut(|Codes(codes)| {
            let codes = &mut codes[..size];
            for block in 0..blocks {
                let place = panel * blocks + block;
                self.unpack(place, codes);
                let run = self.run(place, block, 1, codes);
                self.kernel.add_blocks(sums, self.lanes, rows, first, run);
            }
        });
    }

    /// Blocks from `place` on, which counts those of all panels, with their codes.
    fn run<'a>(&'a self, place: usize, first: usize, blocks: usize, codes: &'a [u8]) -> Run<'a> {
        let (form, width) = (self.form, self.width());
        let parts = form.parts() * width;
        let cut = |values: &'a [i8]| values.get(place * parts..(place + blocks) * parts).unwrap_or_default();
        Run {
            form,
            first,
            codes,
            factors: &self.factors[place * width..][..blocks * width],
            scales: cut(&self.scales),
            least: self.least.get(place * width..(place + blocks) * width).unwrap_or_default(),
            minimums: cut(&self.minimums),
        }
    }

    /// The codes of a panel's block as bytes.
    fn unpack(&self, place: usize, codes: &mut [u8]) {
        let size = codes.len();
        let low = &self.codes[place * size / 2..][..size / 2];
        let high = self.high.get(place * size / 4..(place + 1) * size / 4).unwrap_or_default();
        let slab = self.width() * self.kernel.group();
        self.kernel.unpack(slab, low, high, codes);
    }
}

#[cfg(test)]
mod tests;
