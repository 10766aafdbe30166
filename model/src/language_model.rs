//! A language model ready for inference: states go in with tokens, distributions come out.
//!
//! One call runs the rows of any number of sequences at any position as one packed block: on the CPU by the engine, on
//! another device as plain tensor operations. Knows nothing about sessions, threads or where tokens come from.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result as TensorResult, bail};
use candle_nn::VarBuilder;
use chorus_simd::norm;
use chorus_text::Vocabulary;
use thiserror::Error;

use crate::batch::Batch;
use crate::config::{Config, Start};
use crate::directory::ModelParts;
use crate::engine::Engine;
use crate::load_error::LoadError;
use crate::network::Network;
use crate::precision::Precision;
use crate::quantization::Quantization;
use crate::row::{Output, Prediction, Row, State, Want};

/// A model on a device. It has no state of its own: [`State`] is the caller's.
pub struct LanguageModel {
    config: Config,
    vocabulary: Vocabulary,
    backend: Backend,
    device: Device,
}

/// What computes.
enum Backend {
    /// On the CPU. The lock guards the workspace: calls run one at a time.
    Engine(Box<Mutex<Engine>>),
    /// On another device.
    Tensors(Network),
}

/// Why nothing was computed. All states are as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// A token is not in the vocabulary.
    #[error("token {token} of row {row} is not in the vocabulary, whose largest id is {}", vocab_size - 1)]
    TokenOutOfVocabulary {
        /// Which row of the call.
        row: usize,
        /// The token id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// A state of another shape: it came from another model.
    #[error("a state of this model has {expected} numbers, but this one has {found}")]
    StateSize {
        /// The numbers in it.
        found: usize,
        /// `2 * layers * hidden_size`.
        expected: usize,
    },
    /// A state holds NaN or infinity.
    #[error("number {index} of the state is {value}, but only finite numbers are allowed")]
    StateNotFinite {
        /// Which number.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The device failed.
    #[error("the model can't be computed")]
    Compute(#[from] candle_core::Error),
}

impl LanguageModel {
    /// Loads a model directory onto a device, its weights as they are in the file.
    pub fn load(directory: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::load_as(directory, device, Precision::F32, None)
    }

    /// Loads a model directory onto a device in a precision, or quantised on the way.
    ///
    /// # Errors
    /// As [`ModelParts::load_as`] and [`LanguageModel::from_parts`].
    pub fn load_as(
        directory: &Path,
        device: &Device,
        precision: Precision,
        quantization: Option<Quantization>,
    ) -> Result<Self, LoadError> {
        let parts = ModelParts::load_as(directory, quantization)?;
        Self::from_parts(parts, device, precision).map_err(LoadError::Device)
    }

    /// From parts that fit together, as [`ModelParts::load`] and training make them.
    ///
    /// # Errors
    /// The device fails, or has no kernels for the precision or the quantization: those are for the CPU. Or a precision is
    /// asked for of a quantised model, which has its own.
    pub fn from_parts(parts: ModelParts, device: &Device, precision: Precision) -> TensorResult<Self> {
        let quantized = parts.quantized.clone();
        let tensors = parts.tensors.into_iter().collect();
        let builder = VarBuilder::from_tensors(tensors, DType::F32, device);
        let network = Network::new(&parts.config, &builder)?;
        let engine = |engine| Backend::Engine(Box::new(Mutex::new(engine)));
        let backend = match (device, quantized) {
            (_, Some(quantized)) if precision != Precision::F32 => {
                let quantization = quantized.quantization;
                bail!(
                    "its weights are quantised as {quantization}, so precision {precision} has none to be made of; \
                     allowed is f32"
                )
            }
            (Device::Cpu, Some(quantized)) => engine(Engine::quantized(&network, &quantized)?),
            (Device::Cpu, None) => engine(Engine::new(&network, precision)?),
            (_, Some(quantized)) => {
                bail!("weights quantised as {} are for the CPU", quantized.quantization)
            }
            _ if precision == Precision::Int8 => bail!("precision int8 is for the CPU; allowed here is f32"),
            _ => Backend::Tensors(network.arranged_for_inference()?),
        };
        Ok(Self { config: parts.config, vocabulary: parts.vocabulary, backend, device: device.clone() })
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The state before a sequence's first token: zero, with the start token fed where the config has one.
    pub fn fresh_state(&self) -> Result<State, ForwardError> {
        let mut state = State { values: vec![0.0; self.config.state_size()].into() };
        if let Start::Token(token) = self.config.start {
            self.predict(
                &mut [Row { state: &mut state, tokens: &[token], want: Want::Nothing }],
                &mut |_| {},
            )?;
        }
        Ok(state)
    }

    /// A state from its numbers ([`State::values`]), checked for size and finiteness.
    pub fn restore(&self, values: &[f32]) -> Result<State, ForwardError> {
        self.check_size(values)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(ForwardError::StateNotFinite { index, value: values[index] }),
            None => Ok(State { values: values.into() }),
        }
    }

    /// Feeds every row's tokens and hands every distribution that a row wants to `receive`, in the rows' order and in
    /// order within a row.
    ///
    /// Rows of all lengths run together; the output layer runs over the wanted rows only, a block of them at a time.
    /// On an error no state has changed. On the CPU a call allocates nothing once one of its size has run.
    ///
    /// ```
    /// use candle_core::Device;
    /// use chorus_model::{LanguageModel, Row, Want};
    ///
    /// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
    /// let mut state = model.fresh_state()?;
    /// // The log-probability of a text: of each token under the distribution before it.
    /// let tokens = [40, 41, 42];
    /// let mut log_prob = 0.0;
    /// let rows = &mut [Row { state: &mut state, tokens: &tokens, want: Want::Each }];
    /// model.predict(rows, &mut |prediction| {
    ///     let token = tokens[prediction.offset] as usize;
    ///     log_prob += prediction.norm.log_prob(prediction.logits[token]);
    /// })?;
    /// assert!(log_prob < 0.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn predict(
        &self,
        rows: &mut [Row<'_>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), ForwardError> {
        for (index, row) in rows.iter().enumerate() {
            self.check_row(index, row)?;
        }
        match &self.backend {
            Backend::Engine(engine) => {
                // A call that panicked leaves numbers in the workspace that the next one writes again.
                let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
                engine.forward(rows, receive)?;
            }
            Backend::Tensors(network) => self.predict_with_tensors(network, rows, receive)?,
        }
        Ok(())
    }

    /// The same, with all logits kept: memory grows with the rows wanted, `vocab_size` numbers for each.
    ///
    /// ```
    /// use candle_core::Device;
    /// use chorus_model::{LanguageModel, Row, Want};
    ///
    /// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
    /// let (mut one, mut other) = (model.fresh_state()?, model.fresh_state()?);
    /// let outputs = model.forward(&mut [
    ///     Row { state: &mut one, tokens: &[40, 41, 42], want: Want::Each },
    ///     Row { state: &mut other, tokens: &[40], want: Want::Next },
    /// ])?;
    /// // [3, V] logits, and [1, V]: what follows token 40 is the same in both.
    /// assert_eq!((outputs[0].logits.len(), outputs[1].logits.len()), (3 * 512, 512));
    /// assert_eq!(outputs[0].logits[512..1024], outputs[1].logits);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forward(&self, rows: &mut [Row<'_>]) -> Result<Vec<Output>, ForwardError> {
        let mut outputs = vec![Output { logits: Vec::new() }; rows.len()];
        self.predict(rows, &mut |prediction| {
            outputs[prediction.row].logits.extend_from_slice(prediction.logits);
        })?;
        Ok(outputs)
    }

    /// Bytes of the weights as they are held in memory; on the CPU with the table of the first layer's projections.
    pub fn weight_bytes(&self) -> u64 {
        match &self.backend {
            Backend::Engine(engine) => {
                engine.lock().unwrap_or_else(PoisonError::into_inner).weight_bytes() as u64
            }
            Backend::Tensors(_) => self.config.parameters() * size_of::<f32>() as u64,
        }
    }

    fn predict_with_tensors(
        &self,
        network: &Network,
        rows: &mut [Row<'_>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> TensorResult<()> {
        let batch = Batch::new(rows, self.config.layers, self.config.hidden_size);
        let fed = batch.feed(network, &self.device)?;
        let outputs = batch.outputs(network, &self.device, &fed)?;
        for (index, state) in batch.states_after(&fed)? {
            *rows[index].state = state;
        }
        for (row, output) in outputs.iter().enumerate() {
            for (offset, logits) in output.logits.chunks_exact(self.config.vocab_size).enumerate() {
                receive(Prediction { row, offset, logits, norm: norm(logits) });
            }
        }
        Ok(())
    }

    fn check_row(&self, row: usize, request: &Row<'_>) -> Result<(), ForwardError> {
        let vocab_size = self.config.vocab_size;
        match request.tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(ForwardError::TokenOutOfVocabulary { row, token, vocab_size }),
            None => self.check_size(&request.state.values),
        }
    }

    fn check_size(&self, values: &[f32]) -> Result<(), ForwardError> {
        let (found, expected) = (values.len(), self.config.state_size());
        if found != expected {
            return Err(ForwardError::StateSize { found, expected });
        }
        Ok(())
    }
}

impl fmt::Debug for LanguageModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LanguageModel")
            .field("config", &self.config)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs on other devices, run on this one: the same answers and states as the engine's.
    #[test]
    fn tensor_operations_predict_what_the_engine_predicts() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/tenor");
        let engine = LanguageModel::load(&directory, &Device::Cpu).unwrap();
        let parts = ModelParts::load(&directory).unwrap();
        let builder = VarBuilder::from_tensors(parts.tensors.into_iter().collect(), DType::F32, &Device::Cpu);
        let network = Network::new(&parts.config, &builder).unwrap().arranged_for_inference().unwrap();
        let (config, vocabulary) = (parts.config, parts.vocabulary);
        let tensors =
            LanguageModel { config, vocabulary, backend: Backend::Tensors(network), device: Device::Cpu };
        let answers = |model: &LanguageModel| {
            let mut states = vec![model.fresh_state().unwrap(); 3];
            let tokens: [&[u32]; 3] = [&[40, 41, 42], &[], &[7]];
            let wants = [Want::Each, Want::Next, Want::Next];
            let rows = states.iter_mut().zip(tokens).zip(wants);
            let mut rows: Vec<Row<'_>> =
                rows.map(|((state, tokens), want)| Row { state, tokens, want }).collect();
            let mut numbers = Vec::new();
            let mut places = Vec::new();
            let received = model.predict(&mut rows, &mut |prediction| {
                places.push((prediction.row, prediction.offset));
                numbers.extend_from_slice(prediction.logits);
            });
            received.unwrap();
            states.iter().for_each(|state| numbers.extend_from_slice(state.values()));
            (places, numbers)
        };
        let ((places, numbers), (other_places, others)) = (answers(&engine), answers(&tensors));
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]);
        assert_eq!((other_places, others.len()), (places, numbers.len()));
        assert!(numbers.iter().zip(&others).all(|(one, other)| (one - other).abs() < 1e-4));
    }
}
