//! The kernels of products with blocks, one for each way in which processors multiply bytes.
//!
//! Within a block sums are exact in 32-bit integers, parts' scales included; between blocks they are f32 and taken in order.
//! So a row has the same bits whatever rows stand beside it. The safe wall around the intrinsics: slices are cut to what a
//! kernel reads before it runs.

#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;

use super::form::Form;
use super::rows::{BlockRow, BlockRows};
use crate::engine::kernel::Kernel;
use crate::engine::panels::VECTORS;
use crate::quantization::Quantization;

/// The most lanes of a vector.
const MOST_LANES: usize = 16;

/// Blocks of all columns of a panel, one after the other, as a kernel reads them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) form: Form,
    /// The first block's number in its rows.
    pub(super) first: usize,
    /// `[blocks][unit / group][4][lanes][group]`.
    pub(super) codes: &'a [u8],
    /// `[blocks][4][lanes]`.
    pub(super) factors: &'a [f16],
    /// `[blocks][parts][4][lanes]`; empty where parts have none.
    pub(super) scales: &'a [i8],
    /// `[blocks][4][lanes]`; empty where parts have no minimums.
    pub(super) least: &'a [f16],
    /// `[blocks][parts][4][lanes]`; likewise.
    pub(super) minimums: &'a [i8],
}

/// A few rows of a product.
struct Tile<'a, const ROWS: usize> {
    rows: [BlockRow<'a>; ROWS],
    run: Run<'a>,
    /// `[ROWS][4][lanes]`.
    sums: &'a mut [f32],
}

impl Kernel {
    /// The fastest for blocks in panels of this instruction set.
    pub(super) fn of_blocks(instructions: pulp::Arch) -> Self {
        Self::all_of_blocks(instructions).first().copied().unwrap_or(Self::Plain)
    }

    /// All that this processor has for them, the fastest first.
    pub(super) fn all_of_blocks(instructions: pulp::Arch) -> Vec<Self> {
        let all = Self::all_of(instructions);
        // Factors are f16, and only AVX-512 is sure to read them.
        #[cfg(target_arch = "x86_64")]
        let all = {
            let reads_factors = |kernel: &Self| *kernel != Self::Avx2 || is_x86_feature_detected!("f16c");
            all.into_iter().filter(reads_factors).collect()
        };
        all
    }

    /// `sums[row] += rows[first + row] · run`; `sums` is `[rows][4][lanes]`.
    pub(super) fn add_blocks(
        self,
        sums: &mut [f32],
        lanes: usize,
        rows: &BlockRows,
        first: usize,
        run: Run<'_>,
    ) {
        let width = VECTORS * lanes;
        // As many rows at once as the registers hold sums for.
        let most = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni | Self::Avx512 => 3,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 1,
            Self::Plain => 1,
        };
        let mut row = first;
        for sums in sums.chunks_mut(most * width) {
            match sums.len() / width {
                1 => self.block_tile::<1>(rows, row, run, sums),
                2 => self.block_tile::<2>(rows, row, run, sums),
                _ => self.block_tile::<3>(rows, row, run, sums),
            }
            row += most;
        }
    }

    /// Codes that share bytes into bytes of their own: of every two slabs the low four bits, and of every four the high two
    /// where there are some.
    pub(super) fn unpack(self, slab: usize, low: &[u8], high: &[u8], codes: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Kernel::all_of_blocks` names this kernel only where the processor has these instructions.
            Self::Vnni | Self::Avx512 => unsafe { x86::unpack_512(slab, low, high, codes) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::unpack_256(slab, low, high, codes) },
            Self::Plain => unpack(slab, low, high, codes),
        }
    }

    #[inline(always)]
    fn block_tile<const ROWS: usize>(self, rows: &BlockRows, first: usize, run: Run<'_>, sums: &mut [f32]) {
        match run.form.quantization {
            Quantization::Q8_0 => self.part_tile::<ROWS, 32, 1>(rows, first, run, sums),
            Quantization::Q6K => self.part_tile::<ROWS, 16, 16>(rows, first, run, sums),
            Quantization::Q4K => self.part_tile::<ROWS, 32, 8>(rows, first, run, sums),
        }
    }

    #[inline(always)]
    fn part_tile<const ROWS: usize, const PART: usize, const PARTS: usize>(
        self,
        rows: &BlockRows,
        first: usize,
        run: Run<'_>,
        sums: &mut [f32],
    ) {
        let rows = std::array::from_fn(|row| {
            let BlockRow { values, scales, sums } = rows.row(first + row);
            BlockRow {
                values: &values[run.first * run.form.unit..],
                scales: &scales[run.first..],
                sums: &sums[run.first * run.form.parts()..],
            }
        });
        let tile = Tile::<ROWS> { rows, run, sums };
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Kernel::all_of_blocks` names this kernel only where the processor has these instructions.
            Self::Vnni => unsafe { x86::vnni::<ROWS, PART, PARTS>(tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { x86::avx512::<ROWS, PART, PARTS>(tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::avx2::<ROWS, PART, PARTS>(tile) },
            Self::Plain => plain(tile),
        }
    }
}

/// [`Kernel::unpack`] in loops that compilers turn into vectors.
#[inline(always)]
fn unpack(slab: usize, low: &[u8], high: &[u8], codes: &mut [u8]) {
    if high.is_empty() {
        for (codes, low) in codes.chunks_exact_mut(2 * slab).zip(low.chunks_exact(slab)) {
            let (even, odd) = codes.split_at_mut(slab);
            for ((even, odd), &low) in even.iter_mut().zip(odd).zip(low) {
                (*even, *odd) = (low & 0xf, low >> 4);
            }
        }
        return;
    }
    let slabs = codes.chunks_exact_mut(4 * slab).zip(low.chunks_exact(2 * slab)).zip(high.chunks_exact(slab));
    for ((codes, low), high) in slabs {
        let (first, second) = codes.split_at_mut(2 * slab);
        let ((first, second), (third, fourth)) = (first.split_at_mut(slab), second.split_at_mut(slab));
        let codes = first.iter_mut().zip(second).zip(third.iter_mut().zip(fourth));
        let low = low[..slab].iter().zip(&low[slab..]);
        for (((codes, others), (&low, &other)), &high) in codes.zip(low).zip(high) {
            *codes.0 = low & 0xf | (high & 3) << 4;
            *codes.1 = low >> 4 | (high >> 2 & 3) << 4;
            *others.0 = other & 0xf | (high >> 4 & 3) << 4;
            *others.1 = other >> 4 | (high >> 6) << 4;
        }
    }
}

/// Any processor: the columns of one k are multiplied side by side.
fn plain<const ROWS: usize>(tile: Tile<'_, ROWS>) {
    let Tile { rows, run, sums } = tile;
    let (form, width) = (run.form, sums.len() / ROWS);
    for (row, sums) in rows.iter().zip(sums.chunks_exact_mut(width)) {
        for (block, codes) in run.codes.chunks_exact(form.unit * width).enumerate() {
            let (mut totals, mut minimums) = ([0; VECTORS * MOST_LANES], [0; VECTORS * MOST_LANES]);
            let (totals, minimums) = (&mut totals[..width], &mut minimums[..width]);
            for (part, codes) in codes.chunks_exact(form.part * width).enumerate() {
                let place = block * form.parts() + part;
                let (values, sum) = (&row.values[place * form.part..][..form.part], row.sums[place]);
                let mut products = [-form.zero * sum; VECTORS * MOST_LANES];
                for (&value, codes) in values.iter().zip(codes.chunks_exact(width)) {
                    for (product, &code) in products.iter_mut().zip(codes) {
                        *product += i32::from(value) * i32::from(code);
                    }
                }
                let of_part = place * width..(place + 1) * width;
                for (column, total) in totals.iter_mut().enumerate() {
                    let scale = run.scales.get(of_part.clone()).map_or(1, |scales| i32::from(scales[column]));
                    *total += products[column] * scale;
                }
                for (total, &minimum) in
                    minimums.iter_mut().zip(run.minimums.get(of_part).unwrap_or_default())
                {
                    *total += sum * i32::from(minimum);
                }
            }
            let of_block = block * width..(block + 1) * width;
            let scale = row.scales[block];
            for ((sum, &total), factor) in sums.iter_mut().zip(&*totals).zip(&run.factors[of_block.clone()]) {
                *sum = (factor.to_f32() * scale).mul_add(total as f32, *sum);
            }
            let least = run.least.get(of_block).unwrap_or_default();
            for ((sum, &total), least) in sums.iter_mut().zip(&*minimums).zip(least) {
                *sum = (-(least.to_f32() * scale)).mul_add(total as f32, *sum);
            }
        }
    }
}
