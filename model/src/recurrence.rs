//! The recurrence of one LSTM layer over a packed block, as one differentiable operation.
//!
//! Input projections come in for the whole block at once; what is left for each step is one product with the
//! recurrent weights and the cell's elementwise work ([`crate::cell`]). Knows nothing about embeddings, output layers
//! or how the input projections came about.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use candle_nn::ops::sigmoid;

use crate::cell::{self, BackwardStep, ForwardStep};
use crate::matrix::{MatrixView, add_product, contiguous, in_memory, set_product};
use crate::packing::Packing;

/// The operation on the CPU. Its output is `[N + B, H]`: all hidden vectors, then the last cells.
struct Recurrence {
    packing: Packing,
    keeps_activations: bool,
    /// Left by the forward pass for the backward pass. It stays out of the output tensor, so that no gradient of
    /// zeros is ever made for it.
    activations: OnceLock<Activations>,
}

#[derive(Debug)]
struct Activations {
    /// `[N, 4H]`: σ(i), σ(f), tanh(g), σ(o).
    gates: Vec<f32>,
    /// `[N, H]`.
    cells: Vec<f32>,
}

/// Runs one layer: input projections `x_gates` `[N, 4H]` (gates i, f, g, o; both biases added), recurrent weights
/// `w_hh` `[4H, H]`, state `[2, B, H]` (h, then c). Returns the hidden vectors `[N, H]` and the state `[2, B, H]`
/// after each sequence's last row. Gradients flow into all three.
pub(crate) fn lstm(
    x_gates: &Tensor,
    w_hh: &Tensor,
    state: &Tensor,
    packing: &Packing,
) -> Result<(Tensor, Tensor)> {
    if !x_gates.device().is_cpu() || x_gates.dtype() != DType::F32 {
        return lstm_reference(x_gates, w_hh, state, packing);
    }
    let keeps_activations = x_gates.track_op() || w_hh.track_op() || state.track_op();
    let operation = Recurrence { packing: packing.clone(), keeps_activations, activations: OnceLock::new() };
    let (x_gates, state) = (x_gates.contiguous()?, state.contiguous()?);
    let output = match keeps_activations {
        true => x_gates.apply_op3(w_hh, &state, operation)?,
        false => x_gates.apply_op3_no_bwd(w_hh, &state, &operation)?,
    };
    Ok((output.narrow(0, 0, packing.rows())?, last_state(&output, packing)?))
}

/// The last hidden vectors and cells `[2, B, H]` out of the operation's output.
fn last_state(output: &Tensor, packing: &Packing) -> Result<Tensor> {
    let (rows, batch, hidden_size) = (packing.rows(), packing.batch(), output.dim(1)?);
    let last = if packing.is_rectangle() {
        // The last step's hidden vectors stand right before the last cells.
        output.narrow(0, rows - batch, 2 * batch)?
    } else {
        let rows: Vec<u32> =
            packing.last_rows().into_iter().chain(rows..rows + batch).map(|row| row as u32).collect();
        output.index_select(&Tensor::new(rows, output.device())?, 0)?
    };
    last.reshape((2, batch, hidden_size))
}

impl Recurrence {
    /// The cells before a step: those of the step before, or of the state.
    fn before<'a>(&self, step: usize, width: usize, block: &'a [f32], first: &'a [f32]) -> &'a [f32] {
        let size = self.packing.batch_sizes()[step] * width;
        match step.checked_sub(1) {
            Some(previous) => &block[self.packing.span(previous).start * width..][..size],
            None => &first[..size],
        }
    }

    fn forward(
        &self,
        x_gates: &[f32],
        w_hh: MatrixView<'_>,
        state: &[f32],
    ) -> Result<(Vec<f32>, Activations)> {
        let (size, rows, batch) = (w_hh.columns(), self.packing.rows(), self.packing.batch());
        let transposed;
        // A product wants the weights' columns dense. Copying them so pays when more than one step uses them.
        let w_hh = if w_hh.has_dense_columns() || self.packing.steps() == 1 {
            w_hh.transposed()
        } else {
            transposed = w_hh.to_transposed();
            MatrixView::row_major(&transposed, size, 4 * size)?
        };
        let (first_hidden, first_cell) = state.split_at(batch * size);
        let mut gates = x_gates.to_vec();
        let mut cells = vec![0.0; rows * size];
        let mut output = vec![0.0; (rows + batch) * size];
        for (step, &active) in self.packing.batch_sizes().iter().enumerate() {
            let start = self.packing.span(step).start * size;
            let (hidden_done, hidden) = output.split_at_mut(start);
            let (cells_done, cell) = cells.split_at_mut(start);
            let gates = &mut gates[4 * start..][..4 * active * size];
            let hidden_before = self.before(step, size, hidden_done, first_hidden);
            let hidden_before = MatrixView::row_major(hidden_before, active, size)?;
            add_product(gates, hidden_before, w_hh)?;
            let mut step = ForwardStep {
                gates,
                cell_before: self.before(step, size, cells_done, first_cell),
                cell: &mut cell[..active * size],
                hidden: &mut hidden[..active * size],
            };
            cell::forward(size, &mut step);
        }
        let last_cells = output[rows * size..].chunks_exact_mut(size);
        for (last, row) in last_cells.zip(self.packing.last_rows()) {
            last.copy_from_slice(&cells[row * size..][..size]);
        }
        Ok((output, Activations { gates, cells }))
    }

    /// The gradients of the input projections `[N, 4H]` and of the state `[2, B, H]`: time in reverse.
    fn backward(
        &self,
        activations: &Activations,
        w_hh: MatrixView<'_>,
        state: &[f32],
        grad_output: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let (size, rows, batch) = (w_hh.columns(), self.packing.rows(), self.packing.batch());
        let mut grad_gates = vec![0.0; rows * 4 * size];
        let mut grad_state = vec![0.0; 2 * batch * size];
        let (grad_hidden, grad_cell) = grad_state.split_at_mut(batch * size);
        grad_cell.copy_from_slice(&grad_output[rows * size..]);
        for (step, &active) in self.packing.batch_sizes().iter().enumerate().rev() {
            let (start, width) = (self.packing.span(step).start * size, active * size);
            let grad_gates = &mut grad_gates[4 * start..][..4 * width];
            let mut backward = BackwardStep {
                gates: &activations.gates[4 * start..][..4 * width],
                cell_before: self.before(step, size, &activations.cells, &state[batch * size..]),
                cell: &activations.cells[start..][..width],
                grad_output: &grad_output[start..][..width],
                grad_hidden: &grad_hidden[..width],
                grad_cell: &mut grad_cell[..width],
                grad_gates: &mut *grad_gates,
            };
            cell::backward(size, &mut backward);
            let grad_gates = MatrixView::row_major(grad_gates, active, 4 * size)?;
            set_product(&mut grad_hidden[..width], grad_gates, w_hh)?;
        }
        Ok((grad_gates, grad_state))
    }

    /// The gradient of the recurrent weights `[4H, H]`: one product over all rows of the block.
    fn grad_weight(
        &self,
        size: usize,
        grad_gates: &[f32],
        output: &[f32],
        state: &[f32],
    ) -> Result<Vec<f32>> {
        let rows = self.packing.rows();
        let mut hidden_before = Vec::with_capacity(rows * size);
        for step in 0..self.packing.steps() {
            hidden_before.extend_from_slice(self.before(step, size, output, state));
        }
        let grad_gates = MatrixView::row_major(grad_gates, rows, 4 * size)?.transposed();
        let hidden_before = MatrixView::row_major(&hidden_before, rows, size)?;
        let mut grad = vec![0.0; 4 * size * size];
        set_product(&mut grad, grad_gates, hidden_before)?;
        Ok(grad)
    }

    fn check(&self, x_gates: &[f32], w_hh: MatrixView<'_>, state: &[f32]) -> Result<()> {
        let (size, packing) = (w_hh.columns(), &self.packing);
        let fits = w_hh.rows() == 4 * size
            && x_gates.len() == packing.rows() * 4 * size
            && state.len() == 2 * packing.batch() * size;
        if !fits || packing.rows() == 0 {
            bail!("the shapes of gates, recurrent weights, state and packing disagree");
        }
        Ok(())
    }
}

impl CustomOp3 for Recurrence {
    fn name(&self) -> &'static str {
        "lstm-recurrence"
    }

    fn cpu_fwd(
        &self,
        x_gates: &CpuStorage,
        x_gates_layout: &Layout,
        w_hh: &CpuStorage,
        w_hh_layout: &Layout,
        state: &CpuStorage,
        state_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x_gates, state) = (contiguous(x_gates, x_gates_layout)?, contiguous(state, state_layout)?);
        let w_hh = MatrixView::of_storage(w_hh, w_hh_layout)?;
        self.check(x_gates, w_hh, state)?;
        let (output, activations) = self.forward(x_gates, w_hh, state)?;
        if self.keeps_activations && self.activations.set(activations).is_err() {
            bail!("a recurrence runs once");
        }
        let shape = (self.packing.rows() + self.packing.batch(), w_hh.columns());
        Ok((CpuStorage::F32(output), shape.into()))
    }

    fn bwd(
        &self,
        x_gates: &Tensor,
        w_hh: &Tensor,
        state: &Tensor,
        output: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(activations) = self.activations.get() else {
            bail!("the recurrence ran without keeping its activations");
        };
        let grad_output = grad_output.contiguous()?;
        let storages = [w_hh, state, output, &grad_output].map(Tensor::storage_and_layout);
        let [(w_hh_storage, w_hh_layout), state_data, output_data, grad_data] = &storages;
        let w_hh_view = MatrixView::of_storage(in_memory(w_hh_storage)?, w_hh_layout)?;
        let state_values = contiguous(in_memory(&state_data.0)?, state_data.1)?;
        let output_values = contiguous(in_memory(&output_data.0)?, output_data.1)?;
        let grad_values = contiguous(in_memory(&grad_data.0)?, grad_data.1)?;
        let size = w_hh_view.columns();
        let (grad_gates, grad_state) = self.backward(activations, w_hh_view, state_values, grad_values)?;
        let grad_weight = self.grad_weight(size, &grad_gates, output_values, state_values)?;
        Ok((
            Some(Tensor::from_vec(grad_gates, x_gates.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(grad_weight, w_hh.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(grad_state, state.shape(), &Device::Cpu)?),
        ))
    }
}

/// The same, composed of plain tensor operations: where training would run on another device, and the yardstick of the tests.
pub(crate) fn lstm_reference(
    x_gates: &Tensor,
    w_hh: &Tensor,
    state: &Tensor,
    packing: &Packing,
) -> Result<(Tensor, Tensor)> {
    let weight = w_hh.t()?;
    let (mut hidden, mut cell) = (state.get(0)?, state.get(1)?);
    let mut outputs = Vec::with_capacity(packing.steps());
    let mut ended = Vec::new();
    for (step, &size) in packing.batch_sizes().iter().enumerate() {
        let active = hidden.dim(0)?;
        if size < active {
            let rest = |tensor: &Tensor| tensor.narrow(0, size, active - size);
            ended.push((rest(&hidden)?, rest(&cell)?));
            (hidden, cell) = (hidden.narrow(0, 0, size)?, cell.narrow(0, 0, size)?);
        }
        let rows = x_gates.narrow(0, packing.span(step).start, size)?;
        let gates = (rows + hidden.matmul(&weight)?)?.chunk(4, 1)?;
        let (input, forget) = (sigmoid(&gates[0])?, sigmoid(&gates[1])?);
        let (candidate, output) = (gates[2].tanh()?, sigmoid(&gates[3])?);
        cell = ((forget * cell)? + (input * candidate)?)?;
        hidden = (output * cell.tanh()?)?;
        outputs.push(hidden.clone());
    }
    ended.push((hidden, cell));
    // The longest sequences stand first and end last.
    ended.reverse();
    let (hidden, cell): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    let state = Tensor::stack(&[Tensor::cat(&hidden, 0)?, Tensor::cat(&cell, 0)?], 0)?;
    Ok((Tensor::cat(&outputs, 0)?, state))
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use proptest::prelude::*;

    use super::*;

    type Run = fn(&Tensor, &Tensor, &Tensor, &Packing) -> Result<(Tensor, Tensor)>;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    /// Outputs and all gradients of a weighted sum of every output.
    fn outputs_and_gradients(run: Run, lengths: &[usize], size: usize, seed: u64) -> Result<Vec<Vec<f32>>> {
        let (packing, _) = Packing::from_lengths(lengths);
        let (rows, batch) = (packing.rows(), packing.batch());
        let variable =
            |seed, shape: &[usize]| Var::from_vec(values(seed, shape.iter().product()), shape, &Device::Cpu);
        let x_gates = variable(seed, &[rows, 4 * size])?;
        let w_hh = variable(seed + 1, &[4 * size, size])?;
        let state = variable(seed + 2, &[2, batch, size])?;
        let (hidden, last) = run(&x_gates, &w_hh, &state, &packing)?;
        let weights = Tensor::from_vec(values(seed + 3, rows * size), (rows, size), &Device::Cpu)?;
        let last_weights = Tensor::from_vec(values(seed + 4, 2 * batch * size), last.shape(), &Device::Cpu)?;
        let loss = ((&hidden * weights)?.sum_all()? + (&last * last_weights)?.sum_all()?)?;
        let gradients = loss.backward()?;
        let mut results = vec![hidden, last];
        for variable in [&x_gates, &w_hh, &state] {
            results.push(gradients.get(variable).unwrap().clone());
        }
        results.iter().map(|tensor| tensor.flatten_all()?.to_vec1()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn outputs_and_gradients_equal_the_composed_operations(
            lengths in prop::collection::vec(1usize..7, 1..5), size in 1usize..40, seed in 0u64..1000,
        ) {
            let fused = outputs_and_gradients(lstm, &lengths, size, seed).unwrap();
            let composed = outputs_and_gradients(lstm_reference, &lengths, size, seed).unwrap();
            for (fused, composed) in fused.iter().zip(&composed) {
                let scale = composed.iter().fold(1.0f32, |scale, value| scale.max(value.abs()));
                for (fused, composed) in fused.iter().zip(composed) {
                    prop_assert!((fused - composed).abs() <= 1e-5 * scale, "{fused} against {composed}");
                }
            }
        }
    }

    #[test]
    fn weights_with_dense_columns_give_the_same_result() -> Result<()> {
        let (packing, _) = Packing::from_lengths(&[3, 1]);
        let tensor = |seed, shape: &[usize]| {
            Tensor::from_vec(values(seed, shape.iter().product()), shape, &Device::Cpu)
        };
        let (x_gates, w_hh, state) = (tensor(1, &[4, 20])?, tensor(2, &[20, 5])?, tensor(3, &[2, 2, 5])?);
        let dense_columns = w_hh.t()?.contiguous()?.t()?;
        let (one, _) = lstm(&x_gates, &w_hh, &state, &packing)?;
        let (other, _) = lstm(&x_gates, &dense_columns, &state, &packing)?;
        assert!((one - other)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }
}
