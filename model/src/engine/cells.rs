//! One step of an LSTM layer: gates from products, and the cells' update on the sums where they are.
//!
//! The arithmetic is that of PyTorch's `nn.LSTM`: c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c).

use arrayvec::ArrayVec;
use chorus_simd::{sigmoid, tanh};
use pulp::{Simd, WithSimd};

use super::early_products::Known;
use super::matrix::Rows;
use super::panels::VECTORS;
use super::product::{Activations, BLOCK_ROWS, Sums};
use super::threads::for_panels;
use super::weights::{Affine, Recurrent};

/// What a row's gates are before the recurrent product.
#[derive(Debug, Clone, Copy)]
pub(super) enum GateInput<'a> {
    /// The row of a table `[V][panels][4][lanes]` that its token picks.
    Table {
        /// All rows.
        table: &'a [f32],
        /// Each row's token.
        tokens: &'a [u32],
    },
    /// Projected before: `[panels][rows][4][lanes]`, of which the step's rows begin at `first`.
    Projected {
        /// All rows of the block.
        gates: &'a [f32],
        /// How many they are.
        rows: usize,
        /// The step's first.
        first: usize,
    },
    /// To be projected here, in one product with the recurrent one.
    Below {
        /// The input weights and biases.
        affine: &'a Affine,
        /// The rows of the layer below.
        rows: Rows<'a>,
    },
}

/// A step of a layer: `after[panel][row] = [h, c]` from the same of `before`, each `[lanes]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) input: GateInput<'a>,
    pub(super) recurrent: &'a Recurrent,
    /// h and c before the step, of this step's rows and maybe more.
    pub(super) before: Activations<'a>,
    /// That h as the recurrent product takes it.
    pub(super) hidden: Rows<'a>,
    /// The products of rows that were computed early, if any.
    pub(super) known: Option<Known<'a>>,
    /// The step's rows.
    pub(super) rows: usize,
}

impl Step<'_> {
    /// Runs the step over all panels.
    pub(super) fn run(self, after: &mut [f32]) {
        let size = self.rows * 2 * self.recurrent.lanes();
        let unknown = self.known.map_or(self.rows, |known| known.unknown(self.rows, self.recurrent.panels()));
        let recurrent = unknown * self.recurrent.depth();
        let input = match self.input {
            GateInput::Below { affine, .. } => self.rows * affine.depth(),
            GateInput::Table { .. } | GateInput::Projected { .. } => 0,
        };
        let multiplications =
            self.recurrent.panels() * VECTORS * self.recurrent.lanes() * (recurrent + input);
        let instructions = self.recurrent.instructions();
        for_panels(after, size, multiplications, |first, after| {
            instructions.dispatch(StepPanels { step: self, first, after });
        });
    }
}

struct StepPanels<'a, 'b> {
    step: Step<'a>,
    /// The first panel.
    first: usize,
    after: &'b mut [f32],
}

impl WithSimd for StepPanels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { step, first, after } = self;
        let lanes = S::F32_LANES;
        for (index, after) in after.chunks_exact_mut(step.rows * 2 * lanes).enumerate() {
            let panel = first + index;
            for (block, after) in after.chunks_mut(BLOCK_ROWS * 2 * lanes).enumerate() {
                step.block(simd, panel, block * BLOCK_ROWS, after);
            }
        }
    }
}

impl Step<'_> {
    /// A panel's units for a block of rows.
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, panel: usize, first: usize, after: &mut [f32]) {
        let lanes = S::F32_LANES;
        let rows = after.len() / (2 * lanes);
        let mut sums: ArrayVec<Sums<S>, BLOCK_ROWS> = ArrayVec::new();
        (0..rows).for_each(|_| sums.push([simd.splat_f32s(0.0); VECTORS]));
        self.add_recurrent(simd, &mut sums, first, panel);
        if let GateInput::Below { affine, rows: below } = self.input {
            let mut inputs: ArrayVec<Sums<S>, BLOCK_ROWS> = ArrayVec::new();
            (0..rows).for_each(|_| inputs.push(vectors::<S>(affine.bias(panel))));
            affine.matrix().add_product(simd, &mut inputs, below, first, panel);
            sums.iter_mut().zip(&inputs).for_each(|(sums, inputs)| add(simd, sums, inputs));
        } else {
            for (row, sums) in (first..).zip(&mut sums) {
                add(simd, sums, &vectors::<S>(self.input(panel, row, VECTORS * lanes)));
            }
        }
        let before = &self.before.values[(panel * self.before.rows + first) * 2 * lanes..][..after.len()];
        let (before, after) = (S::as_simd_f32s(before).0, S::as_mut_simd_f32s(after).0);
        let states = before.as_chunks::<2>().0.iter().zip(after.as_chunks_mut::<2>().0);
        // By reference: moving the sums would copy the room for a whole block.
        for ([input, forget, candidate, output], ([_, cell], after)) in sums.iter().zip(states) {
            let added = simd.mul_f32s(sigmoid(simd, *input), tanh(simd, *candidate));
            let cell = simd.mul_add_e_f32s(sigmoid(simd, *forget), *cell, added);
            *after = [simd.mul_f32s(sigmoid(simd, *output), tanh(simd, cell)), cell];
        }
    }

    /// The recurrent products of a block's rows to their sums. Those from the first to the last that is not known are multiplied
    /// together, whatever is known between them: a panel is passed over once.
    #[inline(always)]
    fn add_recurrent<S: Simd>(&self, simd: S, sums: &mut [Sums<S>], first: usize, panel: usize) {
        let matrix = self.recurrent.matrix();
        let Some(known) = self.known else {
            return matrix.add_product(simd, sums, self.hidden, first, panel);
        };
        let width = VECTORS * S::F32_LANES;
        let unknown = known.unknown_rows(first..first + sums.len(), panel);
        let (begin, end) = (unknown.start - first, unknown.end - first);
        for row in (0..begin).chain(end..sums.len()) {
            if let Some(product) = known.product(first + row, panel, width) {
                sums[row] = vectors::<S>(product);
            }
        }
        if begin < end {
            matrix.add_product(simd, &mut sums[begin..end], self.hidden, first + begin, panel);
        }
    }

    /// What a row's token, or the layer below, adds to its gates, `[4][lanes]`.
    #[inline(always)]
    fn input(&self, panel: usize, row: usize, width: usize) -> &[f32] {
        match self.input {
            GateInput::Table { table, tokens } => {
                let token = tokens[row] as usize;
                &table[(token * self.recurrent.panels() + panel) * width..][..width]
            }
            GateInput::Projected { gates, rows, first } => {
                &gates[(panel * rows + first + row) * width..][..width]
            }
            // It is projected, with the bias first.
            GateInput::Below { affine, .. } => affine.bias(panel),
        }
    }
}

/// `sums += numbers`.
#[inline(always)]
fn add<S: Simd>(simd: S, sums: &mut Sums<S>, numbers: &Sums<S>) {
    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = simd.add_f32s(*sum, *number));
}

/// Four vectors from their numbers.
#[inline(always)]
fn vectors<S: Simd>(numbers: &[f32]) -> Sums<S> {
    let vectors = S::as_simd_f32s(numbers).0;
    [vectors[0], vectors[1], vectors[2], vectors[3]]
}
