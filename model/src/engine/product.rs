//! Sums of products of activations with one panel of weights: the kernel that all time goes into.
//!
//! An element's sum is taken in one order whatever rows stand beside it: its k from first to last in parts, each summed
//! from zero by fused multiply-adds and then added. So a row has the same bits alone and in a batch of any size. Knows
//! nothing about LSTMs.

use pulp::Simd;

use super::panels::VECTORS;
use super::prefetch::{Ahead, Tile};

/// The sums of one row with one panel.
pub(super) type Sums<S> = [<S as Simd>::f32s; VECTORS];

/// Rows that pass over a panel together: their sums stay in the first cache.
pub(super) const BLOCK_ROWS: usize = 48;

/// The depth of a part. An f32 sum's rounding error grows with its length: parts of 128 keep a model's logits within
/// 5e-6 of the exact ones. And a part of a panel stays in the nearest caches while the rows pass over it.
const PART: usize = 128;

/// How far ahead of the arithmetic the first rows ask for weights, in bytes.
const NEAR: usize = 8192;

/// Rows of activations as the left side of products: `[depth / lanes][rows][stride]`, the first `lanes` numbers of each
/// stride being the row's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activations<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) stride: usize,
}

impl<'a> Activations<'a> {
    /// `count` rows of a group of k, from a row on.
    #[inline(always)]
    fn group(&self, group: usize, first: usize, count: usize) -> &'a [f32] {
        &self.values[(group * self.rows + first) * self.stride..][..count * self.stride]
    }
}

/// `sums[row] += rows[first + row] · panel` for as many rows as there are sums.
#[inline(always)]
pub(super) fn add_product<S: Simd>(
    simd: S,
    sums: &mut [Sums<S>],
    rows: &Activations<'_>,
    first: usize,
    panel: &[f32],
) {
    let lanes = S::F32_LANES;
    let weights = S::as_simd_f32s(panel).0.as_chunks::<VECTORS>().0;
    let groups = weights.len() / lanes;
    let parts = groups.div_ceil(PART / lanes).max(1);
    let part = groups.div_ceil(parts).max(1);
    // As many rows at once as the registers hold sums for.
    let most = if S::REGISTER_COUNT >= 32 { 6 } else { 3 };
    let tiles = sums.len().div_ceil(most);
    let (share, larger) = (sums.len() / tiles.max(1), sums.len() % tiles.max(1));
    for (index, weights) in weights.chunks(part * lanes).enumerate() {
        let mut row = 0;
        for tile in 0..tiles {
            let count = share + usize::from(tile < larger);
            let sums = &mut sums[row..row + count];
            let place = Place { row: first + row, group: index * part };
            let ahead = Ahead::of(weights, Tile { block: first, index: tile, tiles }, weights.len(), NEAR);
            match count {
                1 => add_tile::<S, 1>(simd, sums, rows, place, weights, ahead),
                2 => add_tile::<S, 2>(simd, sums, rows, place, weights, ahead),
                3 => add_tile::<S, 3>(simd, sums, rows, place, weights, ahead),
                4 => add_tile::<S, 4>(simd, sums, rows, place, weights, ahead),
                5 => add_tile::<S, 5>(simd, sums, rows, place, weights, ahead),
                _ => add_tile::<S, 6>(simd, sums, rows, place, weights, ahead),
            }
            row += count;
        }
    }
}

/// Where in the activations a tile begins.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    group: usize,
}

/// One part for a few rows, in registers.
#[inline(always)]
fn add_tile<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [Sums<S>],
    rows: &Activations<'_>,
    place: Place,
    weights: &[[S::f32s; VECTORS]],
    mut ahead: Ahead,
) {
    let lanes = S::F32_LANES;
    let mut product = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (group, weights) in weights.chunks_exact(lanes).enumerate() {
        let values = rows.group(place.group + group, place.row, ROWS);
        // Not `array::from_fn`, which is compiled without these instructions and stays a call in the innermost loop but one.
        let mut by_row: [&[f32]; ROWS] = [&[]; ROWS];
        for (row, own) in by_row.iter_mut().enumerate() {
            *own = &values[row * rows.stride..][..lanes];
        }
        for (k, weights) in weights.iter().enumerate() {
            // One or two rows do little else than wait for memory: they ask without looking whether they should.
            if ROWS <= 2 {
                ahead.ask_near(weights);
            } else {
                ahead.ask(weights);
            }
            for (product, values) in product.iter_mut().zip(&by_row) {
                let value = simd.splat_f32s(values[k]);
                for (product, weight) in product.iter_mut().zip(weights) {
                    *product = simd.mul_add_e_f32s(value, *weight, *product);
                }
            }
        }
    }
    for (sums, product) in sums.iter_mut().zip(product) {
        for (sum, product) in sums.iter_mut().zip(product) {
            *sum = simd.add_f32s(*sum, product);
        }
    }
}
