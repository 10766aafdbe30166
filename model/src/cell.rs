//! The elementwise work of an LSTM cell, forward and backward, fused into one pass over a step's rows.
//!
//! Plain safe Rust that the compiler vectorises ([`crate::simd`]). Knows nothing about time, packing or tensors.

use crate::simd::{dispatched, sigmoid, tanh};

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

dispatched!(
    /// Activates the gates and updates cells and hidden vectors:
    /// c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), as PyTorch's `nn.LSTM`.
    forward(hidden_size: usize, step: &mut ForwardStep<'_>) = forward_rows
);

dispatched!(
    /// The gradient of [`forward`]'s pre-activations and of the cells before the step.
    backward(hidden_size: usize, step: &mut BackwardStep<'_>) = backward_rows
);

/// Several short loops over a row that stays in the first cache, each with one destination: the compiler vectorises
/// them all, which it does not do for a single loop with six destinations.
#[inline(always)]
fn forward_rows(size: usize, step: &mut ForwardStep<'_>) {
    let gates = step.gates.chunks_exact_mut(4 * size);
    let before = step.cell_before.chunks_exact(size);
    let after = step.cell.chunks_exact_mut(size).zip(step.hidden.chunks_exact_mut(size));
    for ((gates, before), (cell, hidden)) in gates.zip(before).zip(after) {
        let (input_and_forget, rest) = gates.split_at_mut(2 * size);
        let (candidate, output) = rest.split_at_mut(size);
        input_and_forget.iter_mut().for_each(|gate| *gate = sigmoid(*gate));
        candidate.iter_mut().for_each(|gate| *gate = tanh(*gate));
        output.iter_mut().for_each(|gate| *gate = sigmoid(*gate));
        let (input, forget) = input_and_forget.split_at(size);
        let kept = forget.iter().zip(before);
        let added = input.iter().zip(&*candidate);
        for ((cell, (f, before)), (i, g)) in cell.iter_mut().zip(kept).zip(added) {
            *cell = f * before + i * g;
        }
        for ((hidden, o), cell) in hidden.iter_mut().zip(&*output).zip(&*cell) {
            *hidden = o * tanh(*cell);
        }
    }
}

#[inline(always)]
fn backward_rows(size: usize, step: &mut BackwardStep<'_>) {
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
        for unit in 0..size {
            let (i, f, g, o) = (input[unit], forget[unit], candidate[unit], output[unit]);
            let squashed = tanh(cell[unit]);
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
    fn every_vector_width_gives_the_same_bits() {
        let (rows, size) = (3, 37);
        let values = |seed: usize, count: usize| -> Vec<f32> {
            (0..count).map(|index| ((index * 7919 + seed) % 1009) as f32 / 101.0 - 5.0).collect()
        };
        let run = |forward: fn(usize, &mut ForwardStep<'_>)| {
            let (mut gates, before) = (values(1, rows * 4 * size), values(2, rows * size));
            let (mut cell, mut hidden) = (vec![0.0; rows * size], vec![0.0; rows * size]);
            let mut step =
                ForwardStep { gates: &mut gates, cell_before: &before, cell: &mut cell, hidden: &mut hidden };
            forward(size, &mut step);
            [gates, cell, hidden].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(run(forward), run(forward_rows));
    }
}
