//! The recurrence of one LSTM layer over a packed block.
//!
//! Knows nothing about embeddings, output layers or how the input projections came about.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;

use crate::packing::Packing;

/// Runs one layer: input projections `x_gates` `[N, 4H]` (gates i, f, g, o; both biases added), recurrent weights
/// `w_hh` `[4H, H]`, state `[2, B, H]` (h, then c). Returns the hidden vectors `[N, H]` and the state `[2, B, H]`
/// after each sequence's last row. Gradients flow into all three.
pub(crate) fn lstm(
    x_gates: &Tensor,
    w_hh: &Tensor,
    state: &Tensor,
    packing: &Packing,
) -> Result<(Tensor, Tensor)> {
    lstm_reference(x_gates, w_hh, state, packing)
}

/// The same, composed of plain tensor operations.
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
