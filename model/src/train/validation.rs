//! The perplexity of the validation text, which decides about early stopping. Changes nothing.

use candle_core::{Device, Result, Tensor};

use super::lanes::{Block, Lanes};
use super::loss::cross_entropy;
use crate::network::{Network, NetworkState};
use crate::packing::Packing;

/// The mean cross-entropy of `network` on `lanes`, in nats per token, computed in blocks of `time` steps.
///
/// The lanes run side by side for speed. Each but the first begins with the state after the `time` tokens before
/// it, so the figure is that of one pass through the whole text but for what an LSTM remembers from further back.
pub(crate) fn mean_nats(network: &Network, lanes: &Lanes, time: usize) -> Result<f64> {
    let batch = lanes.batch();
    let mut state = warm_state(network, lanes, time)?;
    let mut nats = 0.0;
    for index in 0..lanes.blocks(time) {
        let block = lanes.block(index, time);
        let packing = Packing::rectangle(block.time, batch);
        let (inputs, targets) = tensors(&block)?;
        let (hidden, next) = network.hidden(&inputs, &packing, &state, None)?;
        state = next.detach();
        let mean = cross_entropy(&network.logits(&hidden.detach())?, &targets)?;
        nats += f64::from(mean.to_scalar::<f32>()?) * block.targets.len() as f64;
    }
    Ok(nats / lanes.predicted() as f64)
}

/// A block's inputs and targets as tensors.
pub(crate) fn tensors(block: &Block) -> Result<(Tensor, Tensor)> {
    let inputs = Tensor::new(block.inputs.as_slice(), &Device::Cpu)?;
    let targets = Tensor::new(block.targets.as_slice(), &Device::Cpu)?;
    Ok((inputs, targets))
}

/// Zero for the first lane; for the others, the state after the tokens before them.
fn warm_state(network: &Network, lanes: &Lanes, time: usize) -> Result<NetworkState> {
    let batch = lanes.batch();
    let (time, before) = lanes.before_the_others(time);
    if batch == 1 {
        return network.zero_state(1);
    }
    let inputs = Tensor::new(before.as_slice(), &Device::Cpu)?;
    let packing = Packing::rectangle(time, batch - 1);
    let (_, others) = network.hidden(&inputs, &packing, &network.zero_state(batch - 1)?, None)?;
    let first = network.zero_state(1)?;
    let together = |(first, others): (&Tensor, &Tensor)| Tensor::cat(&[first, &others.detach()], 1);
    let layers = first.layers().iter().zip(others.layers()).map(together).collect::<Result<_>>()?;
    Ok(NetworkState::from_layers(layers))
}

#[cfg(test)]
mod tests {
    use super::super::TrainingOptions;
    use super::super::tests::{markov, options};
    use super::super::texts::{Arrangement, Texts};
    use super::super::trainer::Trainer;
    use super::*;
    use crate::{LanguageModel, ModelParts, Precision, evaluate};

    /// The model of an untrained run on random tokens, as evaluation sees it.
    fn model(trainer: &Trainer) -> LanguageModel {
        let values = trainer.parameters().named();
        let parts = ModelParts::new(
            trainer.config().clone(),
            chorus_text::Vocabulary::train_characters("abc").unwrap(),
            values.map(|(name, value)| (name.to_owned(), value.as_tensor().clone())).collect(),
        );
        LanguageModel::from_parts(parts, &Device::Cpu, Precision::F32).unwrap()
    }

    #[test]
    fn side_by_side_lanes_give_the_figure_of_one_pass_through_the_text() {
        let texts = Texts { training: markov(400, 1), validation: markov(240, 2), vocab_size: 3 };
        let exact = |options| {
            let mut trainer = Trainer::new(options, texts.clone()).unwrap();
            for _ in 0..20 {
                trainer.step().unwrap();
            }
            let evaluation = evaluate(&model(&trainer), &texts.validation, |_| {}).unwrap();
            (evaluation.nats_per_token().unwrap(), trainer)
        };
        let mean = |trainer: &Trainer, batch| {
            let options = TrainingOptions { batch, ..options() };
            let arrangement = Arrangement::new(texts.clone(), &options).unwrap();
            mean_nats(trainer.parameters().network(), arrangement.validation(), 60).unwrap()
        };
        let (one_pass, trainer) =
            exact(TrainingOptions { batch: 1, bptt: 10, learning_rate: 0.05, ..options() });
        assert!((mean(&trainer, 1) - one_pass).abs() < 1e-6);
        // Four lanes of 60 tokens, each after 60 tokens of warming up.
        assert!((mean(&trainer, 4) - one_pass).abs() < 1e-6);
    }
}
