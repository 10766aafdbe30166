//! The elementwise work of an LSTM cell in training, forward and backward, fused into one pass over a step's rows.
//!
//! Plain loops that the compiler vectorises, around the vector functions of [`chorus_simd`]. Knows nothing about time,
//! packing or tensors.

use chorus_simd::{instructions, map_in_place, sigmoid, tanh};
use pulp::{Simd, WithSimd};

/// One step of a layer's forward pass, for b rows.
pub(crate) struct ForwardStep<'a> {
    /// `[b, 4H]`: pre-activations i, f, g, o on entry, activations on return.
    pub(crate) gates: &'a mut [f32],
    /// `[b, H]`: the cells before the step.
    pub(crate) cell_before: &'a [f32],
    /// `[b, H]`: the cells after it.
    pub(crate) cell: &'a mut [f32],
    /// `[b, H]`: the hidden vectors after it.
    pub(crate) hidden: &'a mut [f32],
}

/// One step of a layer's backward pass, for b rows.
pub(crate) struct BackwardStep<'a> {
    /// `[b, 4H]`: the forward pass's activations.
    pub(crate) gates: &'a [f32],
    /// `[b, H]`: the cells before the step.
    pub(crate) cell_before: &'a [f32],
    /// `[b, H]`: the cells after it.
    pub(crate) cell: &'a [f32],
    /// `[b, H]`: the gradient of the hidden vectors from above.
    pub(crate) grad_output: &'a [f32],
    /// `[b, H]`: the gradient of the hidden vectors from the next step.
    pub(crate) grad_hidden: &'a [f32],
    /// `[b, H]`: the gradient of the cells, after the step on entry and before it on return.
    pub(crate) grad_cell: &'a mut [f32],
    /// `[b, 4H]`: the gradient of the pre-activations.
    pub(crate) grad_gates: &'a mut [f32],
}

/// Activates the gates and updates cells and hidden vectors:
/// c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), as PyTorch's `nn.LSTM`.
pub(crate) fn forward(hidden_size: usize, step: &mut ForwardStep<'_>) {
    instructions().dispatch(Forward(hidden_size, step));
}

/// The gradient of [`forward`]'s pre-activations and of the cells before the step.
pub(crate) fn backward(hidden_size: usize, step: &mut BackwardStep<'_>) {
    instructions().dispatch(Backward(hidden_size, step));
}

struct Forward<'a, 'b>(usize, &'a mut ForwardStep<'b>);

struct Backward<'a, 'b>(usize, &'a mut BackwardStep<'b>);

impl WithSimd for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        forward_rows(simd, self.0, self.1);
    }
}

impl WithSimd for Backward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        backward_rows(simd, self.0, self.1);
    }
}

/// Several short loops over a row that stays in the first cache, each with one destination: the compiler vectorises
/// them all, which it does not do for a single loop with six destinations.
#[inline(always)]
fn forward_rows<S: Simd>(simd: S, size: usize, step: &mut ForwardStep<'_>) {
    let gates = step.gates.chunks_exact_mut(4 * size);
    let before = step.cell_before.chunks_exact(size);
    let after = step.cell.chunks_exact_mut(size).zip(step.hidden.chunks_exact_mut(size));
    for ((gates, before), (cell, hidden)) in gates.zip(before).zip(after) {
        let (input_and_forget, rest) = gates.split_at_mut(2 * size);
        let (candidate, output) = rest.split_at_mut(size);
        map_in_place(simd, input_and_forget, |gate| sigmoid(simd, gate));
        map_in_place(simd, candidate, |gate| tanh(simd, gate));
        map_in_place(simd, output, |gate| sigmoid(simd, gate));
        let (input, forget) = input_and_forget.split_at(size);
        let kept = forget.iter().zip(before);
        let added = input.iter().zip(&*candidate);
        for ((cell, (f, before)), (i, g)) in cell.iter_mut().zip(kept).zip(added) {
            *cell = f * before + i * g;
        }
        hidden.copy_from_slice(cell);
        map_in_place(simd, hidden, |cell| tanh(simd, cell));
        hidden.iter_mut().zip(&*output).for_each(|(hidden, o)| *hidden *= o);
    }
}

#[inline(always)]
fn backward_rows<S: Simd>(simd: S, size: usize, step: &mut BackwardStep<'_>) {
    let gates = step.gates.chunks_exact(4 * size).zip(step.grad_gates.chunks_exact_mut(4 * size));
    let cells = step.cell_before.chunks_exact(size).zip(step.cell.chunks_exact(size));
    let above = step.grad_output.chunks_exact(size).zip(step.grad_hidden.chunks_exact(size));
    let grad_cells = step.grad_cell.chunks_exact_mut(size);
    for (((gates, cells), above), grad_cell) in gates.zip(cells).zip(above).zip(grad_cells) {
        let ((gates, grad_gates), (before, cell), (grad_output, grad_hidden)) = (gates, cells, above);
        let (input, forget) = (&gates[..size], &gates[size..][..size]);
        let (candidate, output) = (&gates[2 * size..][..size], &gates[3 * size..][..size]);
        let (grad_input, rest) = grad_gates.split_at_mut(size);
        let (grad_forget, rest) = rest.split_at_mut(size);
        let (grad_candidate, grad_out) = rest.split_at_mut(size);
        let (grad_candidate, grad_out) = (&mut grad_candidate[..size], &mut grad_out[..size]);
        let (before, cell, grad_cell) = (&before[..size], &cell[..size], &mut grad_cell[..size]);
        let (grad_output, grad_hidden) = (&grad_output[..size], &grad_hidden[..size]);
        // The output gate's gradient is the last that is written, so tanh(c) may stand in its place until then.
        grad_out.copy_from_slice(cell);
        map_in_place(simd, grad_out, |cell| tanh(simd, cell));
        for unit in 0..size {
            let (i, f, g, o) = (input[unit], forget[unit], candidate[unit], output[unit]);
            let squashed = grad_out[unit];
            let grad_h = grad_output[unit] + grad_hidden[unit];
            let grad_c = grad_cell[unit] + grad_h * o * (1.0 - squashed * squashed);
            grad_input[unit] = grad_c * g * i * (1.0 - i);
            grad_forget[unit] = grad_c * before[unit] * f * (1.0 - f);
            grad_candidate[unit] = grad_c * i * (1.0 - g * g);
            grad_out[unit] = grad_h * squashed * o * (1.0 - o);
            grad_cell[unit] = grad_c * f;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_computes_the_definition() {
        let (rows, size) = (3, 37);
        let values = |seed: usize, count: usize| -> Vec<f32> {
            (0..count).map(|index| ((index * 7919 + seed) % 1009) as f32 / 101.0 - 5.0).collect()
        };
        let (pre, before) = (values(1, rows * 4 * size), values(2, rows * size));
        let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
        for instructions in chorus_simd::all_instructions() {
            let (mut gates, mut cell, mut hidden) =
                (pre.clone(), vec![0.0; rows * size], vec![0.0; rows * size]);
            let mut step =
                ForwardStep { gates: &mut gates, cell_before: &before, cell: &mut cell, hidden: &mut hidden };
            instructions.dispatch(Forward(size, &mut step));
            for index in 0..rows * size {
                let gate = |gate: usize| pre[index / size * 4 * size + gate * size + index % size];
                let candidate = f64::from(gate(2)).tanh();
                let exact = sigmoid(gate(1)) * f64::from(before[index]) + sigmoid(gate(0)) * candidate;
                assert!((f64::from(cell[index]) - exact).abs() < 2e-6, "{instructions:?}");
                let exact = sigmoid(gate(3)) * exact.tanh();
                assert!((f64::from(hidden[index]) - exact).abs() < 1e-6, "{instructions:?}");
            }
        }
    }
}
