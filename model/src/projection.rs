//! The affine projection of many rows, `x Wᵀ + b`, as one operation with its backward.
//!
//! Composed of tensor operations it would pass over the largest tensors of training several times more: the sum with
//! the bias, its reduction in the backward pass, transposed gradients. Knows nothing about LSTMs.

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use crate::matrix::{MatrixView, add_product, contiguous, in_memory, set_product};

struct Projection;

/// `x Wᵀ + b` of rows `[N, in]` with a weight `[out, in]` and a bias `[out]`: `[N, out]`, differentiable in all three.
pub(crate) fn project(rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?,
    };
    if !rows.device().is_cpu() || rows.dtype() != DType::F32 {
        return rows.matmul(&weight.t()?)?.broadcast_add(&bias);
    }
    if rows.track_op() || weight.track_op() || bias.track_op() {
        rows.apply_op3(weight, &bias, Projection)
    } else {
        rows.apply_op3_no_bwd(weight, &bias, &Projection)
    }
}

impl CustomOp3 for Projection {
    fn name(&self) -> &'static str {
        "projection"
    }

    fn cpu_fwd(
        &self,
        rows: &CpuStorage,
        rows_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let rows = MatrixView::of_storage(rows, rows_layout)?;
        let weight = MatrixView::of_storage(weight, weight_layout)?;
        let bias = contiguous(bias, bias_layout)?;
        if bias.len() != weight.rows() {
            bail!("a weight with {} rows needs as many biases, not {}", weight.rows(), bias.len());
        }
        let mut sums = bias.repeat(rows.rows());
        add_product(&mut sums, rows, weight.transposed())?;
        Ok((CpuStorage::F32(sums), (rows.rows(), weight.rows()).into()))
    }

    fn bwd(
        &self,
        rows: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _product: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [rows_data, weight_data, grad_data] = [rows, weight, &grad].map(Tensor::storage_and_layout);
        let rows_view = MatrixView::of_storage(in_memory(&rows_data.0)?, rows_data.1)?;
        let weight_view = MatrixView::of_storage(in_memory(&weight_data.0)?, weight_data.1)?;
        let grad_values = contiguous(in_memory(&grad_data.0)?, grad_data.1)?;
        let grad_view = MatrixView::row_major(grad_values, rows_view.rows(), weight_view.rows())?;
        let mut grad_rows = vec![0.0; rows.elem_count()];
        set_product(&mut grad_rows, grad_view, weight_view)?;
        let mut grad_weight = vec![0.0; weight.elem_count()];
        set_product(&mut grad_weight, grad_view.transposed(), rows_view)?;
        let mut grad_bias = vec![0.0; weight_view.rows()];
        for row in grad_values.chunks_exact(grad_bias.len()) {
            grad_bias.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        Ok((
            Some(Tensor::from_vec(grad_rows, rows.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(grad_weight, weight.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(grad_bias, bias.shape(), &Device::Cpu)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_composed_operations() -> Result<()> {
        let variable = |rows: usize, columns: usize, seed: usize| {
            let value = |index: usize| ((index * 7919 + seed) % 101) as f32 / 50.0 - 1.0;
            let values: Vec<f32> = (0..rows * columns).map(value).collect();
            Var::from_vec(values, (rows, columns), &Device::Cpu)
        };
        let (rows, weight) = (variable(5, 3, 1)?, variable(4, 3, 2)?);
        let bias = Var::from_tensor(&variable(1, 4, 3)?.flatten_all()?)?;
        let factors = variable(5, 4, 4)?;
        let fused = project(&rows, &weight, Some(&bias))?;
        let composed = rows.matmul(&weight.t()?)?.broadcast_add(&bias)?;
        let gradients = |product: &Tensor| (product * factors.as_detached_tensor())?.sum_all()?.backward();
        let (one, other) = (gradients(&fused)?, gradients(&composed)?);
        let assert_close = |one: &Tensor, other: &Tensor| -> Result<()> {
            let off: f32 = (one - other)?.abs()?.max_all()?.to_scalar()?;
            assert!(off < 1e-5, "off by {off}");
            Ok(())
        };
        assert_close(&fused, &composed)?;
        for variable in [&rows, &weight, &bias] {
            match (one.get(variable), other.get(variable)) {
                (Some(one), Some(other)) => assert_close(one, other)?,
                _ => bail!("a gradient is missing"),
            }
        }
        Ok(())
    }
}
