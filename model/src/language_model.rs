//! A language model ready for inference: states go in with tokens, distributions come out.
//!
//! One call runs the rows of any number of sequences at any position as one packed block, on the CPU or on a device. Knows
//! nothing about sessions, threads or where tokens come from.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result as TensorResult, bail};
use candle_nn::VarBuilder;
use chorus_simd::{Reduced, Reduction, Room};
use chorus_text::Vocabulary;

use crate::capacity::{Capacity, DeviceMemory};
use crate::config::{Config, Start};
use crate::device::Processor;
use crate::directory::ModelParts;
use crate::engine::Engine;
use crate::forward_error::ForwardError;
#[cfg(any(feature = "cuda", feature = "emulated"))]
use crate::gpu::{DeviceEngine, Launcher, Part};
use crate::load_error::LoadError;
use crate::network::Network;
use crate::precision::Precision;
use crate::quantization::Quantization;
use crate::row::{Answer, Output, Prediction, Row, State, Want};

/// A model on a device. States are the caller's ([`State`]). Its own are calls on a device that are under way
/// ([`LanguageModel::submit`]): beside them no whole call is made, by nobody ([`ForwardError::UnderWay`]).
pub struct LanguageModel {
    config: Config,
    vocabulary: Vocabulary,
    pub(crate) backend: Backend,
    device: Device,
}

/// What computes.
pub(crate) enum Backend {
    /// On the CPU. The lock guards the workspace: calls run one at a time.
    Engine(Box<Mutex<Engine>>),
    /// On another device, likewise.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    Device(Box<Mutex<DeviceEngine>>),
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

    /// From parts that fit together, as [`ModelParts::load`] and training make them. On a device with room for what is usual.
    ///
    /// # Errors
    /// The device fails, or has no kernels for the precision or the quantization, or not the memory. Or a precision is asked
    /// for of a quantised model, which has its own.
    pub fn from_parts(parts: ModelParts, device: &Device, precision: Precision) -> TensorResult<Self> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            return Self::on_device(parts, device, precision, Capacity::default());
        }
        let network = network(&parts, device)?;
        let engine = |engine| Backend::Engine(Box::new(Mutex::new(engine)));
        let backend = match (device, &parts.quantized) {
            (_, Some(quantized)) if precision != Precision::F32 => {
                let quantization = quantized.quantization;
                bail!(
                    "its weights are quantised as {quantization}, so precision {precision} has none to be made of; \
                     allowed is f32"
                )
            }
            (Device::Cpu, Some(quantized)) => engine(Engine::quantized(&network, quantized)?),
            (Device::Cpu, None) => engine(Engine::new(&network, precision)?),
            _ => bail!("there are no kernels for {device:?}"),
        };
        Ok(Self { config: parts.config, vocabulary: parts.vocabulary, backend, device: device.clone() })
    }

    /// On a processor; on a device with room for so much.
    ///
    /// # Errors
    /// As [`LanguageModel::from_parts`].
    pub fn on(
        parts: ModelParts,
        processor: &Processor,
        precision: Precision,
        #[cfg_attr(not(any(feature = "cuda", feature = "emulated")), expect(unused_variables))]
        capacity: Capacity,
    ) -> TensorResult<Self> {
        match processor {
            Processor::Cpu => Self::from_parts(parts, &Device::Cpu, precision),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Processor::Device(device) => Self::on_device(parts, device, precision, capacity),
        }
    }

    /// On a device, with room for so much. candle's CPU stands for the emulated device, where that is built. A handle of a CUDA
    /// device is for one model: another one gets its own from [`Processor::open`], with a stream of its own.
    ///
    /// # Errors
    /// As [`LanguageModel::from_parts`], or the handle has no stream of its own, but CUDA's default one or one for each thread.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    pub fn on_device(
        parts: ModelParts,
        device: &Device,
        precision: Precision,
        capacity: Capacity,
    ) -> TensorResult<Self> {
        let kind = match precision {
            Precision::F32 => chorus_kernels::WeightKind::F32,
            Precision::Bf16 => chorus_kernels::WeightKind::Bf16,
            Precision::F16 => chorus_kernels::WeightKind::F16,
            Precision::Int8 => bail!("precision int8 is for the CPU; allowed here are f32, bf16 and f16"),
        };
        if let Some(quantized) = &parts.quantized {
            bail!("weights quantised as {} are for the CPU", quantized.quantization)
        }
        let launcher = Launcher::new(device)?;
        DeviceEngine::check_memory(&launcher, &parts.config, kind, capacity)?;
        let network = network(&parts, &Device::Cpu)?;
        let engine = DeviceEngine::new(launcher, &network, &parts.config, kind, capacity, device)?;
        let backend = Backend::Device(Box::new(Mutex::new(engine)));
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

    /// The state before a sequence's first token: zero, with the start token fed where the config has one, which is a whole call.
    pub fn fresh_state(&self) -> Result<State, ForwardError> {
        let mut state = self.restore(&vec![0.0; self.config.state_size()])?;
        if let Start::Token(token) = self.config.start {
            self.predict(
                &mut [Row { state: &mut state, tokens: &[token], want: Want::Nothing }],
                &mut |_| {},
            )?;
        }
        Ok(state)
    }

    /// A state from its numbers ([`LanguageModel::values`]), checked for size and finiteness.
    pub fn restore(&self, values: &[f32]) -> Result<State, ForwardError> {
        self.check_size(values.len())?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(ForwardError::StateNotFinite { index, value: values[index] });
        }
        match &self.backend {
            Backend::Engine(_) => Ok(State::on_host(values)),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => lock(engine).restore(values),
        }
    }

    /// The numbers of a state, `[layers, 2, hidden_size]`: what a snapshot holds. [`LanguageModel::restore`] takes them back.
    ///
    /// ```
    /// use candle_core::Device;
    /// use chorus_model::LanguageModel;
    ///
    /// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
    /// let state = model.fresh_state()?;
    /// assert_eq!(model.restore(&model.values(&state)?)?, state);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The state is of another device, or the device fails.
    pub fn values<'a>(&self, state: &'a State) -> Result<Cow<'a, [f32]>, ForwardError> {
        match &self.backend {
            Backend::Engine(_) => {
                self.check_size(state.values().len())?;
                Ok(Cow::Borrowed(state.values()))
            }
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => Ok(Cow::Owned(lock(engine).values(state)?)),
        }
    }

    /// Feeds every row's tokens and hands every distribution that a row wants to `receive`, in order within a row; on the CPU
    /// in the rows' order, too.
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
            Backend::Engine(engine) => lock(engine).forward(rows, receive)?,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => {
                let whole = vec![Reduction::Row; rows.len()];
                lock(engine).forward(&mut parts(rows, &whole), &mut |found| {
                    if let Reduced::Row(logits) = found.reduced {
                        let crate::gpu::Found { row, offset, norm, .. } = found;
                        receive(Prediction { row, offset, logits, norm });
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Feeds every row's tokens and hands over what its reduction says of every distribution that it wants, found where the
    /// logits stand: of a device no more comes to the host. In order within a row. On an error no state has changed.
    ///
    /// ```
    /// use candle_core::Device;
    /// use chorus_model::{LanguageModel, Reduced, Reduction, Room, Row, Want};
    ///
    /// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
    /// let mut state = model.fresh_state()?;
    /// let rows = &mut [Row { state: &mut state, tokens: &[40], want: Want::Next }];
    /// let likeliest = [Reduction::Top { k: 3, log_threshold: None }];
    /// model.answer(rows, &likeliest, &mut Room::default(), &mut |answer| {
    ///     assert!(matches!(answer.found, Reduced::Top { ids: [_, _, _], .. }));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`LanguageModel::predict`].
    ///
    /// # Panics
    /// There is not one reduction for each row.
    pub fn answer(
        &self,
        rows: &mut [Row<'_>],
        reductions: &[Reduction<'_>],
        room: &mut Room,
        receive: &mut dyn FnMut(Answer<'_>),
    ) -> Result<(), ForwardError> {
        self.check_rows(rows, reductions)?;
        match &self.backend {
            Backend::Engine(engine) => {
                let asked: Vec<_> = rows.iter().map(|row| (row.want, row.tokens)).collect();
                lock(engine).forward(rows, &mut |prediction| {
                    let Prediction { row, offset, logits, norm } = prediction;
                    let (want, tokens) = asked[row];
                    let token = tokens.get(offset).filter(|_| want == Want::Each);
                    let target = token.and_then(|token| logits.get(*token as usize)).copied();
                    let found =
                        if norm.is_finite() { reductions[row].of(logits, norm, room) } else { Reduced::Norm };
                    receive(Answer { row, offset, norm, target, found });
                })?;
            }
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => {
                lock(engine).forward(&mut parts(rows, reductions), &mut |found| receive(answer(found)))?;
            }
        }
        Ok(())
    }

    /// Whether [`LanguageModel::compute_early`] has anything to do. On a device it never has.
    pub fn has_early_work(&self) -> bool {
        match &self.backend {
            Backend::Engine(engine) => lock(engine).has_early_work(),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(_) => false,
        }
    }

    /// Computes a part, some 100 µs, of what the rows of the last call take in their next one whatever is fed to them: W h of
    /// every layer, for rows that are likely to be fed another token. For a time when nobody waits: what is not computed
    /// early is computed with the token, to the same bits. A part that fails is not tried again.
    ///
    /// ```
    /// use candle_core::Device;
    /// use chorus_model::{LanguageModel, Row, Want};
    ///
    /// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
    /// let mut state = model.fresh_state()?;
    /// let mut read = |token| {
    ///     model.forward(&mut [Row { state: &mut state, tokens: &[token], want: Want::Next }])
    /// };
    /// read(40)?;
    /// while model.has_early_work() {
    ///     model.compute_early()?;
    /// }
    /// read(41)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no memory for it. No state has changed.
    pub fn compute_early(&self) -> Result<(), ForwardError> {
        match &self.backend {
            Backend::Engine(engine) => Ok(lock(engine).compute_early()?),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(_) => Ok(()),
        }
    }

    /// As [`LanguageModel::predict`], with all logits kept: memory grows with the rows wanted, `vocab_size` numbers for each.
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

    /// Bytes of the weights as they are held in memory, with the table of the first layer's projections.
    pub fn weight_bytes(&self) -> u64 {
        match &self.backend {
            Backend::Engine(engine) => lock(engine).weight_bytes() as u64,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => lock(engine).memory().weights,
        }
    }

    /// What it takes of a device's memory; none on the CPU.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        match &self.backend {
            Backend::Engine(_) => None,
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => Some(lock(engine).memory()),
        }
    }

    /// Whether the same input gives the same bits, in whatever batch.
    pub fn repeats_itself(&self) -> bool {
        matches!(self.backend, Backend::Engine(_))
    }

    pub(crate) fn check_rows(
        &self,
        rows: &[Row<'_>],
        reductions: &[Reduction<'_>],
    ) -> Result<(), ForwardError> {
        assert_eq!(rows.len(), reductions.len(), "there is a reduction for each row");
        for (index, (row, reduction)) in rows.iter().zip(reductions).enumerate() {
            self.check_row(index, row)?;
            if let Reduction::Ids(ids) = reduction {
                self.check_ids(index, ids)?;
            }
        }
        Ok(())
    }

    fn check_row(&self, row: usize, request: &Row<'_>) -> Result<(), ForwardError> {
        let vocab_size = self.config.vocab_size;
        if let Some(&token) = request.tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(ForwardError::TokenOutOfVocabulary { row, token, vocab_size });
        }
        match &self.backend {
            Backend::Engine(_) => self.check_size(request.state.values().len()),
            // The engine looks at the place, where the size is that of the table.
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(_) => Ok(()),
        }
    }

    fn check_ids(&self, row: usize, ids: &[u32]) -> Result<(), ForwardError> {
        let vocab_size = self.config.vocab_size;
        if ids.len() > vocab_size {
            return Err(ForwardError::TooManyIds { row, found: ids.len(), vocab_size });
        }
        match ids.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(ForwardError::TokenOutOfVocabulary { row, token, vocab_size }),
            None => Ok(()),
        }
    }

    fn check_size(&self, found: usize) -> Result<(), ForwardError> {
        let expected = self.config.state_size();
        if found != expected {
            return Err(ForwardError::StateSize { found, expected });
        }
        Ok(())
    }
}

/// What a call that panicked left in a workspace is written again by the next one.
pub(crate) fn lock<T>(engine: &Mutex<T>) -> MutexGuard<'_, T> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network of a model's tensors, on a device.
fn network(parts: &ModelParts, device: &Device) -> TensorResult<Network> {
    let tensors = parts.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    Network::new(&parts.config, &VarBuilder::from_tensors(tensors, DType::F32, device))
}

#[cfg(any(feature = "cuda", feature = "emulated"))]
pub(crate) fn parts<'a>(rows: &'a mut [Row<'_>], reductions: &'a [Reduction<'_>]) -> Vec<Part<'a>> {
    let part = |(row, reduction): (&'a mut Row<'_>, &'a Reduction<'_>)| Part {
        state: &mut *row.state,
        tokens: row.tokens,
        want: row.want,
        reduction: *reduction,
    };
    rows.iter_mut().zip(reductions).map(part).collect()
}

#[cfg(any(feature = "cuda", feature = "emulated"))]
pub(crate) fn answer(found: crate::gpu::Found<'_>) -> Answer<'_> {
    let crate::gpu::Found { row, offset, norm, target, reduced } = found;
    Answer { row, offset, norm, target, found: reduced }
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
