//! The variables that a run trains: their names, their initial values, and the network over them.
//! Knows nothing about optimisers.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use super::options::TrainingOptions;
use super::random::{Purpose, generator, uniform};
use crate::config::Config;
use crate::network::Network;

/// All parameters of a model as variables, in the order of their names.
pub(crate) struct Parameters {
    config: Config,
    names: Vec<String>,
    variables: Vec<Var>,
    network: Network,
}

impl Parameters {
    /// Uniform in ±1/√H, as PyTorch's `nn.LSTM` begins; the embedding and the output layer too (Zaremba 2014 has
    /// one range for all). With `forget_bias` that is what the sum of each forget gate's two biases begins with.
    pub(crate) fn initial(config: &Config, options: &TrainingOptions) -> Result<Self> {
        let range = 1.0 / (config.hidden_size as f32).sqrt();
        let shapes = config.tensor_shapes();
        let tensors = shapes.iter().enumerate().map(|(place, (name, shape))| {
            let mut generator = generator(options.seed, Purpose::InitialWeights, place as u64);
            let count = shape.iter().product();
            let mut values: Vec<f32> =
                (0..count).map(|_| (2.0 * uniform(&mut generator) - 1.0) * range).collect();
            if let (Some(bias), true) = (options.forget_bias, name.contains(".bias_")) {
                let bias = if name.contains(".bias_ih_") { bias } else { 0.0 };
                values[config.hidden_size..2 * config.hidden_size].fill(bias);
            }
            Ok((name.clone(), Var::from_vec(values, shape.as_slice(), &Device::Cpu)?))
        });
        let (names, variables): (Vec<_>, Vec<_>) = tensors.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let by_name: HashMap<String, Tensor> = names
            .iter()
            .cloned()
            .zip(variables.iter().map(|variable| variable.as_tensor().clone()))
            .collect();
        let builder = VarBuilder::from_tensors(by_name, DType::F32, &Device::Cpu);
        Ok(Self { config: config.clone(), names, network: Network::new(config, &builder)?, variables })
    }

    /// The network over the variables: it always computes with their present values.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// Every parameter's name and value.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.names.iter().map(String::as_str).zip(&self.variables)
    }
}
