//! Softmax cross-entropy as one candle operation: one pass over the logits forward and one backward.
//! candle-nn's composed version makes five tensors of the logits' size. Knows nothing about the model.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use chorus_simd::{exp, instructions, log_sum_exp, map_in_place};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// The mean over all rows of -log softmax(logits)[target], in nats.
///
/// `logits` is [N, V] in f32, `targets` is [N] in u32 with every entry below V; the result is a scalar through
/// which gradients flow to `logits`. Runs on the CPU.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op2(targets, CrossEntropy::default())
}

/// The forward pass keeps each row's log-sum-exp, since the backward pass needs nothing else to find the softmax.
#[derive(Default)]
struct CrossEntropy {
    log_sum_exps: OnceLock<Vec<f64>>,
}

/// d(mean)/d(logits) = (softmax - one-hot(target)) / N, times the gradient of the mean.
struct CrossEntropyGradient<'a> {
    log_sum_exps: &'a [f64],
    scale: f32,
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (logits, targets, width) = rows(logits, logits_layout, targets, targets_layout)?;
        let log_sum_exps: Vec<f64> = logits.par_chunks_exact(width).map(log_sum_exp).collect();
        // Summed in the order of the rows, so that the sum does not depend on the threads.
        let total: f64 = logits
            .chunks_exact(width)
            .zip(targets)
            .zip(&log_sum_exps)
            .map(|((row, &target), &log_sum_exp)| log_sum_exp - f64::from(row[target as usize]))
            .sum();
        let mean = total / targets.len() as f64;
        self.log_sum_exps.get_or_init(|| log_sum_exps);
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _mean: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(log_sum_exps) = self.log_sum_exps.get() else {
            bail!("cross-entropy: the backward pass ran before the forward pass")
        };
        let scale = gradient.to_scalar::<f32>()? / log_sum_exps.len() as f32;
        let gradient = CrossEntropyGradient { log_sum_exps, scale };
        Ok((Some(logits.apply_op2_no_bwd(targets, &gradient)?), None))
    }
}

impl CustomOp2 for CrossEntropyGradient<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy-gradient"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (logits, targets, width) = rows(logits, logits_layout, targets, targets_layout)?;
        let mut gradient = vec![0f32; logits.len()];
        gradient.par_chunks_exact_mut(width).enumerate().for_each(|(at, gradient)| {
            gradient.copy_from_slice(&logits[at * width..(at + 1) * width]);
            let log_sum_exp = self.log_sum_exps[at] as f32;
            instructions().dispatch(ScaledSoftmax { row: gradient, log_sum_exp, scale: self.scale });
            gradient[targets[at] as usize] -= self.scale;
        });
        Ok((CpuStorage::F32(gradient), logits_layout.shape().clone()))
    }
}

/// A row of logits into `scale` times its softmax.
pub(super) struct ScaledSoftmax<'a> {
    pub(super) row: &'a mut [f32],
    pub(super) log_sum_exp: f32,
    pub(super) scale: f32,
}

impl WithSimd for ScaledSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (shift, scale) = (simd.splat_f32s(self.log_sum_exp), simd.splat_f32s(self.scale));
        map_in_place(simd, self.row, |logit| simd.mul_f32s(scale, exp(simd, simd.sub_f32s(logit, shift))));
    }
}

/// Both arguments as slices, checked: contiguous, of the right types and sizes, every target inside its row.
pub(super) fn rows<'a>(
    logits: &'a CpuStorage,
    logits_layout: &Layout,
    targets: &'a CpuStorage,
    targets_layout: &Layout,
) -> Result<(&'a [f32], &'a [u32], usize)> {
    let (count, width) = logits_layout.shape().dims2()?;
    let (Some(logits_range), Some(targets_range)) =
        (logits_layout.contiguous_offsets(), targets_layout.contiguous_offsets())
    else {
        bail!("cross-entropy: logits and targets must be contiguous")
    };
    let logits = &logits.as_slice::<f32>()?[logits_range.0..logits_range.1];
    let targets = &targets.as_slice::<u32>()?[targets_range.0..targets_range.1];
    if targets.len() != count {
        bail!("cross-entropy: {count} rows of logits, but {} targets", targets.len())
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= width) {
        bail!("cross-entropy: target {target} is not below the vocabulary's size {width}")
    }
    Ok((logits, targets, width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn example() -> (Var, Tensor) {
        let logits: Vec<f32> = (0..35).map(|i| ((i * 37 % 19) as f32 - 9.0) * 0.7).collect();
        let logits = Var::from_vec(logits, (5, 7), &Device::Cpu).unwrap();
        (logits, Tensor::new(&[0u32, 6, 3, 2, 2], &Device::Cpu).unwrap())
    }

    #[test]
    fn value_and_gradient_equal_the_composed_operations() {
        let (logits, targets) = example();
        let fused = cross_entropy(&logits, &targets).unwrap();
        let composed = candle_nn::loss::cross_entropy(&logits, &targets).unwrap();
        let value = |loss: &Tensor| loss.to_scalar::<f32>().unwrap();
        assert!((value(&fused) - value(&composed)).abs() < 1e-6);
        let gradient = |loss: &Tensor| {
            let store = loss.affine(3.0, 0.0).unwrap().backward().unwrap();
            store.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (fused, composed) in gradient(&fused).iter().zip(gradient(&composed)) {
            assert!((fused - composed).abs() < 1e-6);
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        let (logits, _) = example();
        let targets = Tensor::new(&[0u32, 6, 7, 2, 2], &Device::Cpu).unwrap();
        let error = cross_entropy(&logits, &targets).unwrap_err().to_string();
        assert!(error.contains("target 7 is not below the vocabulary's size 7"), "{error}");
    }
}
