//! The rows of some tokens that follow on each other, and their log-probability under a geometric mixture as a tensor, through
//! which gradients flow to the exponents. Knows nothing about how many blocks there are.
//!
//! Two operations of our own stand in for candle's composed ones, which make ten tensors of the rows' size and compute the
//! rows' gradient, too: that is most of the time of a pass.

use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};

use super::DenseRows;
use crate::error::LearnError;

/// Rows as they were read.
pub(super) struct Block {
    members: usize,
    vocab_size: usize,
    /// `[tokens, members, vocabulary]`.
    rows: Vec<f32>,
    targets: Vec<u32>,
}

impl Block {
    /// Reads and checks.
    pub(super) fn read(
        source: &dyn DenseRows,
        tokens: &Range<usize>,
    ) -> std::result::Result<Self, LearnError> {
        let (members, vocab_size, count) = (source.members(), source.vocab_size(), tokens.len());
        let mut rows = vec![f32::NAN; count * members * vocab_size];
        let mut targets = vec![u32::MAX; count];
        let read = source.read(tokens.clone(), &mut rows, &mut targets);
        read.map_err(|source| LearnError::Rows { start: tokens.start, end: tokens.end, source })?;
        if let Some(place) = rows.iter().position(|value| !value.is_finite()) {
            let (row, id) = (place / vocab_size, place % vocab_size);
            let (token, member) = (tokens.start + row / members, row % members);
            return Err(LearnError::RowValue { token, member, id, value: rows[place] });
        }
        if let Some(place) = targets.iter().position(|id| *id as usize >= vocab_size) {
            return Err(LearnError::Target { token: tokens.start + place, id: targets[place], vocab_size });
        }
        Ok(Self { members, vocab_size, rows, targets })
    }

    /// The sum over the tokens of ln P(target) = sum_j a_j l_j(target) - ln sum_u exp sum_j a_j l_j(u), with exponents `[members]`
    /// in f64; a scalar.
    pub(super) fn log_prob(mut self, exponents: &Tensor) -> Result<Tensor> {
        let (targets, vocab_size) = (std::mem::take(&mut self.targets), self.vocab_size);
        let likelihood = LogLikelihood { targets, vocab_size, norms: OnceLock::new() };
        exponents.apply_op1(Mix(self))?.apply_op1(likelihood)
    }
}

/// sum_j a_j l_j of every id: `[members]` becomes `[tokens, vocabulary]`.
struct Mix(Block);

impl CustomOp1 for Mix {
    fn name(&self) -> &'static str {
        "mix-rows"
    }

    fn cpu_fwd(&self, exponents: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let block = &self.0;
        let exponents = numbers(exponents, layout)?;
        let count = block.rows.len() / (block.members * block.vocab_size);
        let mut scores = vec![0.0; count * block.vocab_size];
        let tokens = block.rows.chunks_exact(block.members * block.vocab_size);
        for (scores, rows) in scores.chunks_exact_mut(block.vocab_size).zip(tokens) {
            for (row, exponent) in rows.chunks_exact(block.vocab_size).zip(exponents) {
                scores.iter_mut().zip(row).for_each(|(score, value)| *score += exponent * f64::from(*value));
            }
        }
        Ok((CpuStorage::F64(scores), Shape::from((count, block.vocab_size))))
    }

    fn bwd(&self, _exponents: &Tensor, _scores: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let block = &self.0;
        let gradient = gradient.flatten_all()?.to_vec1::<f64>()?;
        let mut sums = vec![0.0; block.members];
        let tokens = block.rows.chunks_exact(block.members * block.vocab_size);
        for (gradient, rows) in gradient.chunks_exact(block.vocab_size).zip(tokens) {
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(block.vocab_size)) {
                *sum += dot(gradient, row);
            }
        }
        Ok(Some(Tensor::from_vec(sums, block.members, &Device::Cpu)?))
    }
}

/// The sum over all rows of score(target) - ln sum_u exp score(u): `[tokens, vocabulary]` becomes a scalar.
struct LogLikelihood {
    targets: Vec<u32>,
    vocab_size: usize,
    /// Kept from the pass forward for the one backward.
    norms: OnceLock<Vec<f64>>,
}

impl CustomOp1 for LogLikelihood {
    fn name(&self) -> &'static str {
        "log-likelihood"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let rows = numbers(scores, layout)?.chunks_exact(self.vocab_size);
        let norms: Vec<f64> = rows.clone().map(log_sum_exp).collect();
        let log_probs = rows.zip(&self.targets).zip(&norms);
        let sum: f64 = log_probs.map(|((row, target), norm)| row[*target as usize] - norm).sum();
        self.norms.get_or_init(|| norms);
        Ok((CpuStorage::F64(vec![sum]), Shape::from(())))
    }

    /// One at the target less the softmax, times the gradient of the sum.
    fn bwd(&self, scores: &Tensor, _sum: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(norms) = self.norms.get() else {
            bail!("log-likelihood: the backward pass ran before the forward pass")
        };
        let gradient = gradient.to_scalar::<f64>()?;
        let mut values = scores.flatten_all()?.to_vec1::<f64>()?;
        for ((row, target), norm) in values.chunks_exact_mut(self.vocab_size).zip(&self.targets).zip(norms) {
            row.iter_mut().for_each(|score| *score = -gradient * (*score - norm).exp());
            row[*target as usize] += gradient;
        }
        Ok(Some(Tensor::from_vec(values, scores.shape(), &Device::Cpu)?))
    }
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + row.iter().map(|score| (score - largest).exp()).sum::<f64>().ln()
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f64]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F64(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("mixing rows takes contiguous numbers in f64"),
    }
}

/// Sums that run beside each other, so that a processor can add them as vectors.
const LANES: usize = 8;

fn dot(gradient: &[f64], row: &[f32]) -> f64 {
    let (gradient, gradient_rest) = gradient.as_chunks::<LANES>();
    let (row, row_rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (gradient, row) in gradient.iter().zip(row) {
        for lane in 0..LANES {
            lanes[lane] += gradient[lane] * f64::from(row[lane]);
        }
    }
    let rest = gradient_rest.iter().zip(row_rest).map(|(gradient, value)| gradient * f64::from(*value));
    lanes.iter().sum::<f64>() + rest.sum::<f64>()
}
