//! The elementwise work of an LSTM cell, forward and backward, fused into one pass over a step's rows.
//!
//! Plain safe Rust that the compiler vectorises; on x86-64 it is compiled three times and the widest version that the
//! processor has is called. All versions multiply and add separately, so they give the same bits. Knows nothing
//! about time, packing or tensors.

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

/// Compiles `$body` for each vector width and calls the widest that the processor has.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident($step:ty) = $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(hidden_size: usize, step: $step) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512(hidden_size: usize, step: $step) {
                    $body(hidden_size, step);
                }
                #[target_feature(enable = "avx2")]
                fn avx2(hidden_size: usize, step: $step) {
                    $body(hidden_size, step);
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has the feature.
                    return unsafe { avx512(hidden_size, step) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature.
                    return unsafe { avx2(hidden_size, step) };
                }
            }
            $body(hidden_size, step);
        }
    };
}

dispatched!(
    /// Activates the gates and updates cells and hidden vectors:
    /// c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), as PyTorch's `nn.LSTM`.
    forward(ForwardStep<'_>) = forward_rows
);

dispatched!(
    /// The gradient of [`forward`]'s pre-activations and of the cells before the step.
    backward(BackwardStep<'_>) = backward_rows
);

#[inline(always)]
fn forward_rows(size: usize, step: ForwardStep<'_>) {
    let gates = step.gates.chunks_exact_mut(4 * size);
    let before = step.cell_before.chunks_exact(size);
    let after = step
        .cell
        .chunks_exact_mut(size)
        .zip(step.hidden.chunks_exact_mut(size));
    for ((gates, before), (cell, hidden)) in gates.zip(before).zip(after) {
        let (input, rest) = gates.split_at_mut(size);
        let (forget, rest) = rest.split_at_mut(size);
        let (candidate, output) = rest.split_at_mut(size);
        let slices = (
            &mut input[..size],
            &mut forget[..size],
            &mut candidate[..size],
            &mut output[..size],
        );
        let (input, forget, candidate, output) = slices;
        let (before, cell, hidden) = (&before[..size], &mut cell[..size], &mut hidden[..size]);
        for unit in 0..size {
            let (i, f) = (sigmoid(input[unit]), sigmoid(forget[unit]));
            let (g, o) = (tanh(candidate[unit]), sigmoid(output[unit]));
            let c = f * before[unit] + i * g;
            (input[unit], forget[unit], candidate[unit], output[unit]) = (i, f, g, o);
            cell[unit] = c;
            hidden[unit] = o * tanh(c);
        }
    }
}

#[inline(always)]
fn backward_rows(size: usize, step: BackwardStep<'_>) {
    let gates = step
        .gates
        .chunks_exact(4 * size)
        .zip(step.grad_gates.chunks_exact_mut(4 * size));
    let cells = step
        .cell_before
        .chunks_exact(size)
        .zip(step.cell.chunks_exact(size));
    let above = step
        .grad_output
        .chunks_exact(size)
        .zip(step.grad_hidden.chunks_exact(size));
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

/// 1 / (1 + exp(-x)), relative error about 2e-7. NaN stays NaN.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh, relative error about 2e-7: a polynomial near zero, where 1 - 2 / (exp(2x) + 1) would cancel.
/// Coefficients: Cephes, `tanhf`. NaN stays NaN.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut series = -5.704_988_7e-3;
    series = series * square + 2.063_908_8e-2;
    series = series * square - 5.373_971_5e-2;
    series = series * square + 1.333_144_2e-1;
    series = series * square - 3.333_328_2e-1;
    let near = series * square * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.625 { near } else { far }
}

/// exp, relative error about 1e-7, saturating at both ends: 2^n by the exponent's bits times a polynomial on
/// |r| <= ln 2 / 2. Coefficients: Cephes, `expf`. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to the nearest integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    series = series * r + 1.398_199_9e-3;
    series = series * r + 8.333_452e-3;
    series = series * r + 4.166_579_6e-2;
    series = series * r + 1.666_666_5e-1;
    series = series * r + 5.000_000_1e-1;
    let mantissa = series * r * r + r + 1.0;
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(found: f32, exact: f64) -> f64 {
        (f64::from(found) - exact).abs() / exact.abs().max(1e-30)
    }

    #[test]
    fn functions_are_exact_to_a_few_units_in_the_last_place() {
        for step in -400_000..=400_000 {
            let x = step as f32 * 2e-4;
            let exact = f64::from(x);
            assert!(relative_error(exp(x), exact.exp()) < 3e-7, "exp({x})");
            assert!(
                relative_error(sigmoid(x), 1.0 / (1.0 + (-exact).exp())) < 4e-7,
                "sigmoid({x})"
            );
            if x != 0.0 {
                assert!(relative_error(tanh(x), exact.tanh()) < 4e-7, "tanh({x})");
            }
        }
    }

    #[test]
    fn extremes_saturate_and_nan_is_not_hidden() {
        assert_eq!(
            [sigmoid(1e30), tanh(1e30), tanh(-1e30), tanh(0.0)],
            [1.0, 1.0, -1.0, 0.0]
        );
        assert!(sigmoid(-1e30) < 1e-30);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!(tanh(1e-20), 1e-20);
    }

    #[test]
    fn every_vector_width_gives_the_same_bits() {
        let (rows, size) = (3, 37);
        let values = |seed: usize, count: usize| -> Vec<f32> {
            (0..count)
                .map(|index| ((index * 7919 + seed) % 1009) as f32 / 101.0 - 5.0)
                .collect()
        };
        let run = |forward: fn(usize, ForwardStep<'_>)| {
            let (mut gates, before) = (values(1, rows * 4 * size), values(2, rows * size));
            let (mut cell, mut hidden) = (vec![0.0; rows * size], vec![0.0; rows * size]);
            let step = ForwardStep {
                gates: &mut gates,
                cell_before: &before,
                cell: &mut cell,
                hidden: &mut hidden,
            };
            forward(size, step);
            [gates, cell, hidden]
                .concat()
                .into_iter()
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(forward), run(forward_rows));
    }
}
