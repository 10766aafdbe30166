//! Seeded dropout. candle's own takes its randomness from the thread and cannot be seeded, so the same seed could
//! not give the same weights. Knows nothing about where it is applied: the network calls it at Zaremba's places.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;

use super::random::{Purpose, generator};

/// The dropout masks of one step, in the order in which they are asked for.
pub(crate) struct Dropout {
    probability: f64,
    generator: ChaCha8Rng,
}

/// One mask, which the backward pass applies again to the gradient.
/// An element is kept where its 16 random bits are below `kept_below`.
#[derive(Clone)]
struct Mask {
    bits: Arc<Vec<u16>>,
    kept_below: u32,
    scale: f32,
}

impl Dropout {
    /// The masks of step `step` under `seed`; `probability` is that of dropping an element, in [0, 1).
    pub(crate) fn new(probability: f64, seed: u64, step: u64) -> Self {
        Self { probability, generator: generator(seed, Purpose::Dropout, step) }
    }

    /// Sets elements to zero with the probability p and scales the others by 1/(1-p), so that means are kept.
    pub(crate) fn apply(&mut self, activations: &Tensor) -> Result<Tensor> {
        // Sixteen bits resolve the probability to 1/65536; what is scaled by is the resolved one.
        let kept_below = ((1.0 - self.probability) * 65536.0).round().max(1.0) as u32;
        let scale = (65536.0 / f64::from(kept_below)) as f32;
        let bits = Arc::new(self.draw(activations.elem_count()));
        activations.contiguous()?.apply_op1(Mask { bits, kept_below, scale })
    }

    fn draw(&mut self, count: usize) -> Vec<u16> {
        let mut bits = Vec::with_capacity(count + 1);
        while bits.len() < count {
            let word = self.generator.next_u32();
            bits.extend([word as u16, (word >> 16) as u16]);
        }
        bits.truncate(count);
        bits
    }
}

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((begin, end)) = layout.contiguous_offsets() else {
            bail!("dropout: the activations must be contiguous")
        };
        let activations = &storage.as_slice::<f32>()?[begin..end];
        let mut dropped = vec![0f32; activations.len()];
        let keep = |(dropped, (activation, &bits)): (&mut f32, (&f32, &u16))| {
            // A factor and no branch: half of the branches would be predicted wrong.
            *dropped = activation * (f32::from(u8::from(u32::from(bits) < self.kept_below)) * self.scale);
        };
        let chunk = 1 << 14;
        dropped
            .par_chunks_mut(chunk)
            .zip(activations.par_chunks(chunk).zip(self.bits.par_chunks(chunk)))
            .for_each(|(dropped, (activations, bits))| {
                dropped.iter_mut().zip(activations.iter().zip(bits)).for_each(keep);
            });
        Ok((CpuStorage::F32(dropped), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn kept_elements_are_scaled_and_gradients_pass_the_same_mask() {
        let ones = Var::ones((100, 100), candle_core::DType::F32, &Device::Cpu).unwrap();
        let dropped = Dropout::new(0.4, 1, 0).apply(&ones).unwrap();
        let values = dropped.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = 1.0 / 0.6;
        assert!(values.iter().all(|&value| value == 0.0 || (value - scale).abs() < 1e-4));
        let share = values.iter().filter(|&&value| value == 0.0).count() as f64 / 10_000.0;
        assert!((share - 0.4).abs() < 0.02, "{share}");
        let gradient = dropped.sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&ones).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient, values);
    }

    #[test]
    fn masks_follow_from_seed_and_step_and_differ_within_a_step() {
        let ones = Tensor::ones((8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        let draw = |dropout: &mut Dropout| dropout.apply(&ones).unwrap().to_vec2::<f32>().unwrap();
        let mut first = Dropout::new(0.5, 1, 3);
        let (a, b) = (draw(&mut first), draw(&mut first));
        assert_ne!(a, b);
        assert_eq!(a, draw(&mut Dropout::new(0.5, 1, 3)));
        assert_ne!(a, draw(&mut Dropout::new(0.5, 1, 4)));
    }
}
