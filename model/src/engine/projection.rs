//! Affine projections of rows by panels: the input side of a layer for a whole block, and the output layer.

use pulp::{Simd, WithSimd};

use super::matrix::{Rows, Scratch};
use super::panels::VECTORS;
use super::product::{Activations, BLOCK_ROWS};
use super::threads::for_panels;
use super::weights::Affine;

/// `output[panel][row] = bias + rows · Wᵀ`, each `[4][lanes]`, over all panels of the weights.
pub(super) fn project(affine: &Affine, rows: Activations<'_>, output: &mut [f32], scratch: &mut Scratch) {
    let instructions = affine.instructions();
    let size = rows.rows * affine.width();
    let rows = affine.matrix().rows(rows, rows.rows, scratch);
    let multiplications = output.len() * affine.depth();
    for_panels(output, size, multiplications, |first, output| {
        instructions.dispatch(Project { affine, rows, first, size, output });
    });
}

struct Project<'a> {
    affine: &'a Affine,
    rows: Rows<'a>,
    /// The first panel.
    first: usize,
    /// Numbers of a panel's rows.
    size: usize,
    output: &'a mut [f32],
}

impl WithSimd for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (index, output) in self.output.chunks_exact_mut(self.size).enumerate() {
            let panel = self.first + index;
            let bias = S::as_simd_f32s(self.affine.bias(panel)).0;
            let sums = S::as_mut_simd_f32s(output).0.as_chunks_mut::<VECTORS>().0;
            for (block, sums) in sums.chunks_mut(BLOCK_ROWS).enumerate() {
                sums.iter_mut().for_each(|sums| sums.copy_from_slice(bias));
                self.affine.matrix().add_product(simd, sums, self.rows, block * BLOCK_ROWS, panel);
            }
        }
    }
}
