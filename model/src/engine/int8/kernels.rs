//! The kernels of products in 8 bits, one for each way in which processors multiply bytes.
//!
//! The safe wall around the intrinsics: slices are cut to what a kernel reads before it runs.

use super::{Panel, QuantizedRows};
use crate::engine::kernel::Kernel;
use crate::engine::panels::VECTORS;
use crate::engine::prefetch::{self, Ahead};

/// A few rows of a product: what they are, where their sums go.
struct Tile<'a, const ROWS: usize> {
    /// Each row's activations, in whole groups of the panel's depth.
    rows: [&'a [u8]; ROWS],
    /// Each row's scale.
    scales: [f32; ROWS],
    panel: Panel<'a>,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only intrinsics ask ahead"))]
    ahead: Ahead,
    /// `[ROWS][4][lanes]`.
    sums: &'a mut [f32],
}

/// How far ahead of the arithmetic weights are asked for, in bytes.
const NEAR: usize = 4096;

impl Kernel {
    /// `sums[row] += rows[first + row] · panel`; `sums` is `[rows][4][lanes]`.
    pub(super) fn add_product(
        self,
        sums: &mut [f32],
        lanes: usize,
        rows: &QuantizedRows,
        first: usize,
        panel: Panel<'_>,
    ) {
        let width = VECTORS * lanes;
        let most = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni | Self::Avx512 => 6,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 2,
            Self::Plain => 1,
        };
        let count = sums.len() / width;
        let tiles = count.div_ceil(most);
        let mut row = first;
        let mut rest = sums;
        for tile in 0..tiles {
            let size = count / tiles + usize::from(tile < count % tiles);
            let (sums, others) = rest.split_at_mut(size * width);
            rest = others;
            let times = panel.values.len() / (width * self.group());
            let place = prefetch::Tile { block: first, index: tile, tiles };
            let ahead = Ahead::of(panel.values, place, times, NEAR);
            match size {
                1 => self.tile::<1>(rows, row, panel, ahead, sums),
                2 => self.tile::<2>(rows, row, panel, ahead, sums),
                3 => self.tile::<3>(rows, row, panel, ahead, sums),
                4 => self.tile::<4>(rows, row, panel, ahead, sums),
                5 => self.tile::<5>(rows, row, panel, ahead, sums),
                _ => self.tile::<6>(rows, row, panel, ahead, sums),
            }
            row += size;
        }
    }

    #[inline(always)]
    fn tile<const ROWS: usize>(
        self,
        rows: &QuantizedRows,
        first: usize,
        panel: Panel<'_>,
        ahead: Ahead,
        sums: &mut [f32],
    ) {
        let depth = panel.values.len() / panel.scales.len();
        let rows: [(&[u8], f32); ROWS] = std::array::from_fn(|row| rows.row(first + row));
        let tile = Tile {
            rows: rows.map(|(values, _)| &values[..depth]),
            scales: rows.map(|(_, scale)| scale),
            panel,
            ahead,
            sums,
        };
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Kernel::all_of` names this kernel only where the processor has these instructions.
            Self::Vnni => unsafe { x86::vnni(tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { x86::avx512(tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::avx2(tile) },
            Self::Plain => plain(tile),
        }
    }
}

/// Any processor: the columns of one k are multiplied side by side.
fn plain<const ROWS: usize>(tile: Tile<'_, ROWS>) {
    let Tile { rows, scales, panel, sums, .. } = tile;
    let width = panel.scales.len();
    for ((row, scale), sums) in rows.iter().zip(scales).zip(sums.chunks_exact_mut(width)) {
        // A panel has at most four vectors of sixteen lanes.
        let mut products = [0i32; VECTORS * 16];
        let products = &mut products[..width];
        products.copy_from_slice(panel.starts);
        for (&value, weights) in row.iter().zip(panel.values.chunks_exact(width)) {
            for (product, &weight) in products.iter_mut().zip(weights) {
                *product += i32::from(value) * i32::from(weight);
            }
        }
        for ((sum, &product), &column) in sums.iter_mut().zip(&*products).zip(panel.scales) {
            *sum += product as f32 * (column * scale);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The same by x86-64's vector instructions.

    use std::arch::x86_64::*;

    use super::{Tile, VECTORS};

    /// A kernel over vectors of `$lanes` columns: how weights are loaded, activations spread, products added.
    macro_rules! kernel {
        (
            $(#[$doc:meta])*
            $name:ident, $features:literal, $lanes:literal, $group:literal, $integers:ty,
            load: |$weights:ident| $load:expr,
            spread: |$bytes:ident| $spread:expr,
            add: |$sum:ident, $left:ident, $right:ident| $add:expr,
            starts: $load_integers:ident,
            finish: |$sums:ident, $products:ident, $columns:ident, $scale:ident| $finish:expr $(,)?
        ) => {
            $(#[$doc])*
            #[target_feature(enable = $features)]
            pub(super) fn $name<const ROWS: usize>(tile: Tile<'_, ROWS>) {
                let Tile { rows, scales, panel, mut ahead, sums } = tile;
                let starts = panel.starts.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
                let groups = panel.values.as_chunks::<{ $lanes * $group }>().0.as_chunks::<VECTORS>().0;
                let rows = rows.map(|row| row.as_chunks::<$group>().0);
                let rows = rows.map(|row| &row[..groups.len()]);
                let mut products: [[$integers; VECTORS]; ROWS] = std::array::from_fn(|_| {
                    // SAFETY: each is as long as the vector that is read.
                    std::array::from_fn(|vector| unsafe { $load_integers(starts[0][vector].as_ptr().cast()) })
                });
                for (group, weights) in groups.iter().enumerate() {
                    ahead.ask(weights);
                    let weights: [$integers; VECTORS] = std::array::from_fn(|vector| {
                        let $weights = weights[vector].as_ptr();
                        // SAFETY: each is as long as the vector that is read.
                        unsafe { $load }
                    });
                    for (products, row) in products.iter_mut().zip(&rows) {
                        let $bytes = row[group];
                        let $left = $spread;
                        for (product, $right) in products.iter_mut().zip(weights) {
                            let $sum = *product;
                            *product = $add;
                        }
                    }
                }
                let columns = panel.scales.as_chunks::<$lanes>().0;
                let sums = sums.as_chunks_mut::<$lanes>().0.as_chunks_mut::<VECTORS>().0;
                for ((sums, products), $scale) in sums.iter_mut().zip(products).zip(scales) {
                    for ((sums, $products), columns) in sums.iter_mut().zip(products).zip(columns) {
                        let ($sums, $columns) = (sums.as_mut_ptr(), columns.as_ptr());
                        // SAFETY: each is as long as the vector that is read and written.
                        unsafe { $finish }
                    }
                }
            }
        };
    }

    kernel! {
        /// AVX-512 VNNI.
        vnni, "avx512f,avx512bw,avx512vnni", 16, 4, __m512i,
        load: |weights| _mm512_loadu_si512(weights.cast()),
        spread: |bytes| _mm512_set1_epi32(i32::from_le_bytes(bytes)),
        add: |sum, left, right| _mm512_dpbusd_epi32(sum, left, right),
        starts: _mm512_loadu_si512,
        finish: |sums, products, columns, scale| {
            let scale = _mm512_mul_ps(_mm512_loadu_ps(columns), _mm512_set1_ps(scale));
            let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, _mm512_loadu_ps(sums));
            _mm512_storeu_ps(sums, sum);
        },
    }

    kernel! {
        /// AVX-512 without VNNI.
        avx512, "avx512f,avx512bw", 16, 2, __m512i,
        load: |weights| _mm512_cvtepi8_epi16(_mm256_loadu_si256(weights.cast())),
        spread: |bytes| _mm512_set1_epi32(i32::from(bytes[0]) | i32::from(bytes[1]) << 16),
        add: |sum, left, right| _mm512_add_epi32(sum, _mm512_madd_epi16(left, right)),
        starts: _mm512_loadu_si512,
        finish: |sums, products, columns, scale| {
            let scale = _mm512_mul_ps(_mm512_loadu_ps(columns), _mm512_set1_ps(scale));
            let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, _mm512_loadu_ps(sums));
            _mm512_storeu_ps(sums, sum);
        },
    }

    kernel! {
        /// AVX2.
        avx2, "avx2,fma", 8, 2, __m256i,
        load: |weights| _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast())),
        spread: |bytes| _mm256_set1_epi32(i32::from(bytes[0]) | i32::from(bytes[1]) << 16),
        add: |sum, left, right| _mm256_add_epi32(sum, _mm256_madd_epi16(left, right)),
        starts: _mm256_loadu_si256,
        finish: |sums, products, columns, scale| {
            let scale = _mm256_mul_ps(_mm256_loadu_ps(columns), _mm256_set1_ps(scale));
            let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, _mm256_loadu_ps(sums));
            _mm256_storeu_ps(sums, sum);
        },
    }
}
