//! The gradients of one step in the order of the parameters, and their clipping by the global norm.
//! Knows nothing about the optimiser.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Result, Storage, Tensor, Var, bail};
use rayon::prelude::*;

/// One gradient for each parameter, contiguous, in the order of the parameters.
pub(crate) struct Gradients(Vec<Tensor>);

impl Gradients {
    /// Takes the gradients of `parameters` out of `store`; a parameter that the loss does not depend on has zeros.
    pub(crate) fn take<'a>(mut store: GradStore, parameters: impl Iterator<Item = &'a Var>) -> Result<Self> {
        parameters
            .map(|parameter| match store.remove(parameter) {
                Some(gradient) => gradient.contiguous(),
                None => parameter.zeros_like(),
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter()
    }

    /// The Euclidean norm of all gradients as one vector.
    pub(crate) fn norm(&self) -> Result<f64> {
        let squares = self.0.iter().map(sum_of_squares).collect::<Result<Vec<f64>>>()?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// The factor that brings gradients of this norm down to the norm `threshold`, or 1 (Pascanu, Mikolov and Bengio
/// 2013, algorithm 1). The optimiser multiplies by it as it reads the gradients, which saves a pass over them.
pub(crate) fn clip_factor(norm: f64, threshold: f64) -> f64 {
    if norm > threshold { threshold / norm } else { 1.0 }
}

/// In chunks of a fixed size that are added in their order: the sum does not depend on the number of threads.
fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((begin, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        bail!("gradients are expected in f32 on the CPU")
    };
    let chunks: Vec<f64> = values[begin..end].par_chunks(1 << 14).map(chunk_sum_of_squares).collect();
    Ok(chunks.iter().sum())
}

/// In lanes, so that the compiler vectorises it: one sum alone has to wait for each of its additions.
fn chunk_sum_of_squares(chunk: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let (blocks, rest) = chunk.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, &value)| *sum += square(value));
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| square(value)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_norm_is_over_all_gradients_and_clipping_scales_them_to_the_threshold() {
        let a = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let b = Var::new(&[[3f32]], &Device::Cpu).unwrap();
        let unused = Var::new(&[9f32], &Device::Cpu).unwrap();
        // d(3a + 4b)/d(a, b) = (3, 3, 4): norm sqrt(34).
        let loss = ((a.affine(3.0, 0.0).unwrap().sum_all().unwrap())
            + b.affine(4.0, 0.0).unwrap().sum_all().unwrap())
        .unwrap();
        let gradients = Gradients::take(loss.backward().unwrap(), [&a, &b, &unused].into_iter()).unwrap();
        let norm = gradients.norm().unwrap();
        assert!((norm - 34f64.sqrt()).abs() < 1e-12);
        assert!((clip_factor(norm, 2.0) * norm - 2.0).abs() < 1e-12);
        assert_eq!(clip_factor(norm, 6.0), 1.0);
        assert_eq!(gradients.iter().count(), 3);
    }
}
