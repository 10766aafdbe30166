//! The losses of lines: what is learned from a batch of them, and how well those of the validation are predicted.
//! Knows nothing about the steps before or after.

use candle_core::{Device, Result, Tensor};

use super::distillation::Loss;
use super::line_batch::LineBatch;
use super::lines::LineEpoch;
use super::loss::cross_entropy;
use crate::network::{Dropout, Network};

/// What is minimised: the mean of the learned tokens' cross entropies and those of the context, which count
/// `context_weight` each. [`Loss::nats`] is about the learned ones alone.
pub(crate) fn loss(
    network: &Network,
    batch: &LineBatch,
    context_weight: f64,
    dropout: Option<Dropout<'_>>,
) -> Result<Loss> {
    let hidden = hidden(network, batch, dropout)?;
    let learned = mean(network, &hidden, batch, &batch.learned)?;
    let nats = f64::from(learned.to_scalar::<f32>()?);
    let tokens = batch.learned.len();
    let weight = context_weight * batch.context.len() as f64;
    let total = if weight > 0.0 {
        let share = tokens as f64 / (tokens as f64 + weight);
        let context = mean(network, &hidden, batch, &batch.context)?;
        (learned.affine(share, 0.0)? + context.affine(1.0 - share, 0.0)?)?
    } else {
        learned
    };
    Ok(Loss { total, nats, soft_nats: None, tokens })
}

/// The mean cross entropy of the learned tokens in nats per token.
pub(crate) fn mean_nats(network: &Network, lines: &LineEpoch) -> Result<f64> {
    let (mut nats, mut tokens) = (0.0, 0);
    for index in 0..lines.batches() {
        let batch = lines.batch(index);
        let hidden = hidden(network, &batch, None)?.detach();
        let mean = mean(network, &hidden, &batch, &batch.learned)?;
        nats += f64::from(mean.to_scalar::<f32>()?) * batch.learned.len() as f64;
        tokens += batch.learned.len();
    }
    Ok(nats / tokens as f64)
}

/// The top layer's hidden vectors after each row, every line read from a zero state.
fn hidden(network: &Network, batch: &LineBatch, dropout: Option<Dropout<'_>>) -> Result<Tensor> {
    let inputs = Tensor::new(batch.inputs.as_slice(), &Device::Cpu)?;
    let state = network.zero_state(batch.packing.batch())?;
    Ok(network.hidden(&inputs, &batch.packing, &state, dropout)?.0)
}

/// The mean cross entropy of some rows. The output layer is computed for these only.
fn mean(network: &Network, hidden: &Tensor, batch: &LineBatch, rows: &[u32]) -> Result<Tensor> {
    let targets: Vec<u32> = rows.iter().map(|&row| batch.targets[row as usize]).collect();
    let targets = Tensor::new(targets, &Device::Cpu)?;
    let hidden = match rows.len() == batch.targets.len() {
        true => hidden.clone(),
        false => hidden.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?,
    };
    cross_entropy(&network.logits(&hidden)?, &targets)
}
