//! Adam and stochastic gradient descent, in place. candle-nn has both, but hides Adam's moments, and a checkpoint
//! that does not hold them cannot continue as if nothing had happened. Knows nothing about the model.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::gradient::Gradients;

/// The rule that turns gradients into updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Adam (Kingma and Ba 2015) with β₁ = 0.9, β₂ = 0.999, ε = 1e-8 and without weight decay.
    Adam,
    /// Plain stochastic gradient descent. The loss is the mean over all tokens of a block, as in PyTorch's examples; that of
    /// Zaremba 2014 is the sum over time, so that his rate of 1 is one of `bptt` here, and his norm of 5 one of 5 / `bptt`.
    Sgd,
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Elements that one task updates; each is updated alone, so the division has no influence on the result.
const CHUNK: usize = 1 << 14;

/// The optimiser and what it remembers.
pub(crate) struct Optimizer {
    /// Adam's moments, one pair for each parameter in the parameters' order; none for SGD.
    moments: Option<Vec<Moments>>,
}

/// The exponential means of a parameter's gradients and of their squares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

/// Adam's update of one parameter.
struct AdamUpdate<'a> {
    moments: RefCell<&'a mut Moments>,
    /// The learning rate over 1 - β₁ᵗ, and the square root of 1 - β₂ᵗ.
    rate: f32,
    second_correction: f32,
    gradient_factor: f32,
}

/// p <- p - rate * g, the clipping factor being part of the rate.
struct SgdUpdate {
    rate: f32,
}

impl Optimizer {
    /// An optimiser that has seen no gradient.
    pub(crate) fn new(kind: OptimizerKind, parameters: &[Var]) -> Self {
        let zeros = |parameter: &Var| {
            let count = parameter.elem_count();
            Moments { first: vec![0.0; count], second: vec![0.0; count] }
        };
        let moments = match kind {
            OptimizerKind::Adam => Some(parameters.iter().map(zeros).collect()),
            OptimizerKind::Sgd => None,
        };
        Self { moments }
    }

    /// Adam's moments for a checkpoint; empty for SGD.
    pub(crate) fn moments(&self) -> &[Moments] {
        self.moments.as_deref().unwrap_or_default()
    }

    /// The same, to be filled from a checkpoint.
    pub(crate) fn moments_mut(&mut self) -> &mut [Moments] {
        self.moments.as_deref_mut().unwrap_or_default()
    }

    /// Updates all parameters in place. `step` counts the updates before this one; the gradients are multiplied by
    /// `gradient_factor` (the clipping) as they are read.
    pub(crate) fn update(
        &mut self,
        parameters: &[Var],
        gradients: &Gradients,
        step: u64,
        rate: f64,
        gradient_factor: f64,
    ) -> Result<()> {
        match &mut self.moments {
            None => {
                let update = SgdUpdate { rate: (rate * gradient_factor) as f32 };
                parameters.iter().zip(gradients.iter()).try_for_each(|(p, g)| p.inplace_op2(g, &update))
            }
            Some(moments) => {
                let updates = i32::try_from(step + 1).unwrap_or(i32::MAX);
                let rate = rate / (1.0 - f64::from(BETA_1).powi(updates));
                let second_correction = (1.0 - f64::from(BETA_2).powi(updates)).sqrt();
                for ((parameter, gradient), moments) in parameters.iter().zip(gradients.iter()).zip(moments) {
                    let update = AdamUpdate {
                        moments: RefCell::new(moments),
                        rate: rate as f32,
                        second_correction: second_correction as f32,
                        gradient_factor: gradient_factor as f32,
                    };
                    parameter.inplace_op2(gradient, &update)?;
                }
                Ok(())
            }
        }
    }
}

impl InplaceOp2 for AdamUpdate<'_> {
    fn name(&self) -> &'static str {
        "adam-update"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let (values, gradient) = slices(parameter, parameter_layout, gradient, gradient_layout)?;
        let &Self { rate, second_correction, gradient_factor, .. } = self;
        let mut moments = self.moments.borrow_mut();
        let Moments { first, second } = &mut **moments;
        let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
        let parameters = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        parameters.zip(moments).for_each(|((values, gradient), (first, second))| {
            let moments = first.iter_mut().zip(second);
            for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
                let gradient = gradient * gradient_factor;
                *first = BETA_1 * *first + (1.0 - BETA_1) * gradient;
                *second = BETA_2 * *second + (1.0 - BETA_2) * gradient * gradient;
                *value -= rate * *first / (second.sqrt() / second_correction + EPSILON);
            }
        });
        Ok(())
    }
}

impl InplaceOp2 for SgdUpdate {
    fn name(&self) -> &'static str {
        "sgd-update"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let (values, gradient) = slices(parameter, parameter_layout, gradient, gradient_layout)?;
        values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).for_each(|(values, gradient)| {
            values.iter_mut().zip(gradient).for_each(|(value, gradient)| *value -= self.rate * gradient);
        });
        Ok(())
    }
}

fn slices<'a>(
    parameter: &'a mut CpuStorage,
    parameter_layout: &Layout,
    gradient: &'a CpuStorage,
    gradient_layout: &Layout,
) -> Result<(&'a mut [f32], &'a [f32])> {
    let (CpuStorage::F32(values), Some(range)) = (parameter, parameter_layout.contiguous_offsets()) else {
        bail!("parameters are expected contiguous and in f32")
    };
    let Some(gradient_range) = gradient_layout.contiguous_offsets() else {
        bail!("gradients are expected contiguous")
    };
    Ok((&mut values[range.0..range.1], &gradient.as_slice::<f32>()?[gradient_range.0..gradient_range.1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// Two steps on loss = sum(w * [1, -2, 0.001]) + sum(w²) / 2 at rate 0.1, then one at 0.05 with the gradient
    /// halved, and the weights after each.
    fn trajectory(kind: OptimizerKind) -> Vec<Vec<f32>> {
        let parameters = [Var::new(&[0.5f32, -1.5, 0.0], &Device::Cpu).unwrap()];
        let slope = Tensor::new(&[1f32, -2.0, 0.001], &Device::Cpu).unwrap();
        let mut optimizer = Optimizer::new(kind, &parameters);
        [(0.1, 1.0), (0.1, 1.0), (0.05, 0.5)]
            .into_iter()
            .enumerate()
            .map(|(step, (rate, factor))| {
                let weight = &parameters[0];
                let square = (weight.sqr().unwrap() * 0.5).unwrap();
                let loss = ((weight.as_tensor() * &slope).unwrap() + square).unwrap().sum_all().unwrap();
                let gradients = Gradients::take(loss.backward().unwrap(), parameters.iter()).unwrap();
                optimizer.update(&parameters, &gradients, step as u64, rate, factor).unwrap();
                weight.to_vec1().unwrap()
            })
            .collect()
    }

    fn assert_close(ours: &[Vec<f32>], expected: [[f64; 3]; 3]) {
        for (ours, expected) in ours.iter().flatten().zip(expected.iter().flatten()) {
            assert!((f64::from(*ours) - expected).abs() < 1e-6, "{ours} instead of {expected}");
        }
    }

    /// Made with PyTorch 2 by
    /// ```python
    /// w = torch.tensor([0.5, -1.5, 0.0], requires_grad=True); o = torch.optim.Adam([w], lr=0.1)  # or SGD
    /// for lr, factor in [(0.1, 1), (0.1, 1), (0.05, 0.5)]:
    ///     o.param_groups[0]["lr"] = lr; o.zero_grad()
    ///     ((w * torch.tensor([1, -2, 0.001])).sum() + (w * w).sum() / 2).backward()
    ///     w.grad *= factor; o.step(); print([f"{x:.8f}" for x in w.tolist()])
    /// ```
    #[test]
    fn adam_takes_pytorchs_steps() {
        assert_close(&trajectory(OptimizerKind::Adam), ADAM);
    }

    #[test]
    fn sgd_takes_pytorchs_steps() {
        assert_close(&trajectory(OptimizerKind::Sgd), SGD);
    }

    const ADAM: [[f64; 3]; 3] = [
        [0.40000001, -1.39999998, -0.09999899],
        [0.30023906, -1.30008602, -0.02626557],
        [0.25383043, -1.25326824, 0.00604788],
    ];
    const SGD: [[f64; 3]; 3] = [
        [0.34999999, -1.14999998, -0.00010000],
        [0.21499999, -0.83499998, -0.00019000],
        [0.18462498, -0.76412499, -0.00021025],
    ];
}
