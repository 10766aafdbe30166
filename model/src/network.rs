//! The network: embedding (or one-hot rows) -> LSTM layers -> linear, over packed blocks of tokens.
//!
//! The arithmetic is that of PyTorch's `nn.Embedding`, `nn.LSTM` and `nn.Linear` (gates i, f, g, o). It is
//! differentiable end to end; it knows nothing about files, vocabularies or sessions.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

use crate::config::{Config, names};
use crate::packing::Packing;
use crate::projection::project;
use crate::recurrence;

/// A dropout, applied by [`Network::hidden`] to the non-recurrent connections.
pub type Dropout<'a> = &'a mut dyn FnMut(&Tensor) -> Result<Tensor>;

/// The state of a batch of B sequences: h and c of every layer.
#[derive(Debug, Clone)]
pub struct NetworkState {
    /// One tensor `[2, B, H]` for each layer: h, then c.
    layers: Vec<Tensor>,
}

/// Weights of an LSTM language model, arranged to be run.
#[derive(Debug, Clone)]
pub struct Network {
    pub(crate) input: Input,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output: Affine,
    pub(crate) hidden_size: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// `[V, E]`.
    Embedding(Tensor),
    /// One-hot input needs no matrix of its own: the first layer's projection is a row lookup.
    OneHot,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Input weights `[4H, in]` and both biases `[4H]`.
    pub(crate) input: Affine,
    /// Recurrent weights `[4H, H]`.
    pub(crate) weight_hh: Tensor,
}

/// `x Wᵀ` plus every bias.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub(crate) weight: Tensor,
    /// Summed when they are used, not before: a trained variable changes its values.
    biases: Vec<Tensor>,
}

impl NetworkState {
    /// The state before the first token: all zero.
    pub fn zeros(layers: usize, batch: usize, hidden_size: usize, device: &Device) -> Result<Self> {
        let zero = || Tensor::zeros((2, batch, hidden_size), DType::F32, device);
        Ok(Self { layers: (0..layers).map(|_| zero()).collect::<Result<_>>()? })
    }

    /// From one tensor `[2, B, H]` for each layer.
    pub fn from_layers(layers: Vec<Tensor>) -> Self {
        Self { layers }
    }

    /// One tensor `[2, B, H]` for each layer: h, then c.
    pub fn layers(&self) -> &[Tensor] {
        &self.layers
    }

    /// The same values, cut off from the graph of gradients (truncated back-propagation through time).
    pub fn detach(&self) -> Self {
        Self { layers: self.layers.iter().map(Tensor::detach).collect() }
    }
}

impl Network {
    /// Takes the tensors that [`Config::tensor_shapes`] lists from `builder`, which may be backed by variables.
    pub fn new(config: &Config, builder: &VarBuilder<'_>) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let shapes = config.tensor_shapes();
        let optional =
            |name: &str| shapes.get(name).map(|shape| builder.get(shape.as_slice(), name)).transpose();
        let required = |name: &str| match optional(name)? {
            Some(tensor) => Ok(tensor),
            None => bail!("the config has no tensor {name}"),
        };
        let layer = |layer: usize| {
            let biases = [optional(&names::bias_ih(layer))?, optional(&names::bias_hh(layer))?];
            let input = Affine {
                weight: required(&names::weight_ih(layer))?,
                biases: biases.into_iter().flatten().collect(),
            };
            Ok(Layer { input, weight_hh: required(&names::weight_hh(layer))? })
        };
        let embedding = optional(names::EMBED)?;
        let output_weight = match &embedding {
            Some(embedding) if config.tied => embedding.clone(),
            _ => required(names::LINEAR_WEIGHT)?,
        };
        Ok(Self {
            input: embedding.map_or(Input::OneHot, Input::Embedding),
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            output: Affine { weight: output_weight, biases: Vec::from_iter(optional(names::LINEAR_BIAS)?) },
            hidden_size: config.hidden_size,
        })
    }

    /// Feeds a packed block of tokens (u32 `[N]`) to B sequences in `state`. Returns the top layer's hidden vectors
    /// `[N, H]` and the state after each sequence's last token.
    ///
    /// `dropout` is applied where Zaremba et al. 2014 (arXiv 1409.2329) put it: after the embedding, between layers
    /// and before the output layer, never on a recurrent connection. One-hot input has no embedding to drop.
    pub fn hidden(
        &self,
        tokens: &Tensor,
        packing: &Packing,
        state: &NetworkState,
        mut dropout: Option<Dropout<'_>>,
    ) -> Result<(Tensor, NetworkState)> {
        self.check(tokens, packing, state)?;
        let mut drop = |tensor: Tensor| match dropout.as_mut() {
            Some(dropout) => dropout(&tensor),
            None => Ok(tensor),
        };
        let mut below = match &self.input {
            Input::Embedding(weight) => Some(drop(weight.index_select(tokens, 0)?)?),
            Input::OneHot => None,
        };
        let mut after = Vec::with_capacity(self.layers.len());
        for (layer, state) in self.layers.iter().zip(&state.layers) {
            let gates = match &below {
                Some(below) => layer.input.apply(below)?,
                None => layer.input.rows(tokens)?,
            };
            let (hidden, state) = recurrence::lstm(&gates, &layer.weight_hh, state, packing)?;
            after.push(state);
            below = Some(drop(hidden)?);
        }
        match below {
            Some(hidden) => Ok((hidden, NetworkState { layers: after })),
            None => bail!("a network needs at least one layer"),
        }
    }

    /// The output layer: logits `[N, V]` of hidden vectors `[N, H]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.output.apply(hidden)
    }

    /// A zero state for `batch` sequences on the network's device.
    pub fn zero_state(&self, batch: usize) -> Result<NetworkState> {
        NetworkState::zeros(self.layers.len(), batch, self.hidden_size, self.output.weight.device())
    }

    fn check(&self, tokens: &Tensor, packing: &Packing, state: &NetworkState) -> Result<()> {
        if packing.rows() == 0 || tokens.dims() != [packing.rows()] {
            bail!("tokens have shape {:?}, but the packing has {} rows", tokens.dims(), packing.rows());
        }
        let expected = [2, packing.batch(), self.hidden_size];
        let fits = |layer: &Tensor| layer.dims() == expected;
        if state.layers.len() != self.layers.len() || !state.layers.iter().all(fits) {
            bail!("the state must have {} layers of shape {expected:?}", self.layers.len());
        }
        Ok(())
    }
}

impl Affine {
    fn apply(&self, input: &Tensor) -> Result<Tensor> {
        project(input, &self.weight, self.bias()?.as_ref())
    }

    /// The rows of Wᵀ that one-hot vectors of `tokens` would pick.
    fn rows(&self, tokens: &Tensor) -> Result<Tensor> {
        let rows = self.weight.t()?.contiguous()?.index_select(tokens, 0)?;
        match self.bias()? {
            Some(bias) => rows.broadcast_add(&bias),
            None => Ok(rows),
        }
    }

    /// The sum of the biases.
    pub(crate) fn bias(&self) -> Result<Option<Tensor>> {
        match self.biases.split_first() {
            Some((first, others)) => others.iter().try_fold(first.clone(), |sum, bias| sum + bias).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::VarMap;

    use super::*;
    use crate::config::{FORMAT, Start};

    fn config(embedding_size: Option<usize>) -> Config {
        Config {
            format: FORMAT,
            name: "test".to_owned(),
            vocab_size: 6,
            embedding_size,
            hidden_size: 4,
            layers: 2,
            tied: false,
            lstm_bias: true,
            output_bias: true,
            start: Start::ZeroState,
            end: None,
        }
    }

    /// Variables start at zero; these do not.
    fn network(config: &Config, variables: &VarMap) -> Result<Network> {
        let builder = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
        let network = Network::new(config, &builder)?;
        for variable in variables.all_vars() {
            let count = variable.elem_count() as u32;
            let values = Tensor::arange(0, count, &Device::Cpu)?.to_dtype(DType::F32)?.sin()?;
            variable.set(&values.reshape(variable.shape())?)?;
        }
        Ok(network)
    }

    #[test]
    fn dropout_is_on_the_non_recurrent_connections_only() -> Result<()> {
        for (embedding_size, expected) in [(Some(3), vec![3, 4, 4]), (None, vec![4, 4])] {
            let network = network(&config(embedding_size), &VarMap::new())?;
            let (packing, _) = Packing::from_lengths(&[3, 2]);
            let tokens = Tensor::new(&[0u32, 1, 2, 3, 5], &Device::Cpu)?;
            let mut widths = Vec::new();
            let mut nothing_left = |tensor: &Tensor| {
                widths.push(tensor.dim(1)?);
                tensor.zeros_like()
            };
            let state = network.zero_state(2)?;
            let (hidden, after) = network.hidden(&tokens, &packing, &state, Some(&mut nothing_left))?;
            assert_eq!(widths, expected);
            // What reaches the output layer is dropped; what reaches the next step is not.
            assert_eq!(hidden.abs()?.max_all()?.to_scalar::<f32>()?, 0.0);
            assert!(after.layers()[1].abs()?.max_all()?.to_scalar::<f32>()? > 0.0);
        }
        Ok(())
    }

    #[test]
    fn every_variable_has_a_gradient_and_a_changed_one_is_seen() -> Result<()> {
        for embedding_size in [Some(3), None] {
            let variables = VarMap::new();
            let network = network(&config(embedding_size), &variables)?;
            let packing = Packing::rectangle(2, 2);
            let tokens = Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu)?;
            let loss = || {
                let (hidden, _) = network.hidden(&tokens, &packing, &network.zero_state(2)?, None)?;
                network.logits(&hidden)?.sqr()?.sum_all()
            };
            let before = loss()?;
            let gradients = before.backward()?;
            for variable in variables.all_vars() {
                let gradient = gradients.get(&variable).map(Tensor::shape);
                assert_eq!(gradient, Some(variable.shape()));
                variable.set(&(variable.as_tensor() + 0.1)?)?;
            }
            assert_ne!(loss()?.to_scalar::<f32>()?, before.to_scalar::<f32>()?);
        }
        Ok(())
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() -> Result<()> {
        let network = network(&config(None), &VarMap::new())?;
        let tokens = Tensor::new(&[0u32, 1], &Device::Cpu)?;
        let run =
            |packing: Packing, batch| network.hidden(&tokens, &packing, &network.zero_state(batch)?, None);
        assert!(run(Packing::rectangle(1, 2), 2).is_ok());
        assert!(run(Packing::rectangle(1, 3), 3).is_err());
        assert!(run(Packing::rectangle(1, 2), 3).is_err());
        assert!(run(Packing::rectangle(0, 0), 0).is_err());
        Ok(())
    }
}
