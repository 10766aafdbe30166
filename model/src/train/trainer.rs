//! Truncated back-propagation through time, one step at a time, and what a checkpoint needs of it.
//! Knows nothing about files, intervals or reports.

use candle_core::{DType, Device, Tensor, Var};

use super::checkpoint::{Best, Header, Progress, Tensors};
use super::distillation::{Loss, Objective};
use super::dropout::Dropout;
use super::error::TrainError;
use super::gradient::{Gradients, clip_factor};
use super::initial::begin_with;
use super::line_step;
use super::material::Material;
use super::optimizer::Optimizer;
use super::options::TrainingOptions;
use super::origin::Origin;
use super::parameters::Parameters;
use super::reading::{Pass, Reading};
use super::schedule::Place;
use super::texts::Epoch;
use super::validation::{mean_nats, tensors};
use crate::config::Config;
use crate::network::NetworkState;
use crate::packing::Packing;

/// A training run in memory.
pub(crate) struct Trainer {
    options: TrainingOptions,
    parameters: Parameters,
    optimizer: Optimizer,
    objective: Objective,
    reading: Reading,
    origin: Origin,
    /// The training data as the present epoch reads it.
    epoch: Pass,
    /// The state after the last block, without its graph; zero at an epoch's start, and always where lines are read.
    carried: NetworkState,
    progress: Progress,
}

/// What one step's forward pass gives.
struct Forward {
    loss: Loss,
    /// The state after a block of a text.
    next: Option<NetworkState>,
    /// How many tokens were read.
    read: usize,
}

/// What an epoch's end found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EpochEnd {
    /// The validation's mean cross-entropy in nats per token.
    pub(crate) nats: f64,
    /// Whether it is the best so far.
    pub(crate) improved: bool,
}

impl Trainer {
    /// A run at its beginning.
    pub(crate) fn new(options: TrainingOptions, material: impl Into<Material>) -> Result<Self, TrainError> {
        options.validate()?;
        let Material { data, teacher, initial } = material.into();
        let config = options.config(data.vocab_size())?;
        let parameters = Parameters::initial(&config, &options)?;
        let initial_model = initial.map(|model| begin_with(&parameters, &model)).transpose()?;
        let optimizer = Optimizer::new(options.optimizer, parameters.variables());
        let objective = Objective::new(options.distillation, teacher, &data)?;
        let [training_text, validation_text] = data.hashes();
        let origin = Origin {
            vocab_size: data.vocab_size(),
            training_text,
            validation_text,
            teacher: objective.teacher_hash(),
            initial_model,
        };
        let reading = Reading::new(data, &options)?;
        let epoch = reading.epoch(0)?;
        let carried = zero_state(&config, options.batch)?;
        let progress = Progress::default();
        Ok(Self { options, parameters, optimizer, objective, reading, origin, epoch, carried, progress })
    }

    pub(crate) fn config(&self) -> &Config {
        self.parameters.config()
    }

    pub(crate) fn options(&self) -> &TrainingOptions {
        &self.options
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Steps in each epoch.
    pub(crate) fn steps_per_epoch(&self) -> usize {
        self.epoch.steps(self.options.bptt)
    }

    /// Tokens in each epoch.
    pub(crate) fn tokens_per_epoch(&self) -> usize {
        self.epoch.tokens()
    }

    /// Whether all blocks of the present epoch are done, so that [`Trainer::end_epoch`] is next.
    pub(crate) fn epoch_is_done(&self) -> bool {
        self.progress.block == self.steps_per_epoch()
    }

    /// Whether the run is over: all epochs done, or none better for as many as the patience allows.
    pub(crate) fn is_over(&self) -> bool {
        self.progress.epoch >= self.options.epochs || self.progress.epochs_since_best >= self.options.patience
    }

    /// One block, or one batch of lines: forward, backward, clip, update.
    pub(crate) fn step(&mut self) -> Result<(), TrainError> {
        let mut masks = Dropout::new(self.options.dropout, self.options.seed, self.progress.step);
        let mut dropout = |activations: &Tensor| masks.apply(activations);
        let dropout: Option<crate::network::Dropout<'_>> =
            if self.options.dropout > 0.0 { Some(&mut dropout) } else { None };
        let Forward { loss, next, read } = self.forward(dropout)?;
        let gradients = Gradients::take(loss.total.backward()?, self.parameters.variables().iter())?;
        let norm = gradients.norm()?;
        let total = f64::from(loss.total.to_scalar::<f32>()?);
        if !total.is_finite() || !norm.is_finite() {
            return Err(TrainError::Diverged { step: self.progress.step, loss: total });
        }
        let learning_rate = self.learning_rate();
        let clip = clip_factor(norm, self.options.clip);
        let step = self.progress.step;
        self.optimizer.update(self.parameters.variables(), &gradients, step, learning_rate, clip)?;
        if let Some(next) = next {
            self.carried = next.detach();
        }
        self.advance(&loss, read, learning_rate);
        Ok(())
    }

    fn forward(&self, dropout: Option<crate::network::Dropout<'_>>) -> candle_core::Result<Forward> {
        match (&self.epoch, &self.options.lines) {
            (Pass::Text(epoch), _) => self.text_forward(epoch, dropout),
            (Pass::Lines(epoch), lines) => {
                let batch = epoch.batch(self.progress.block);
                let context_weight = lines.as_ref().map_or(0.0, |lines| lines.context_weight);
                let loss = line_step::loss(self.parameters.network(), &batch, context_weight, dropout)?;
                Ok(Forward { loss, next: None, read: batch.targets.len() })
            }
        }
    }

    fn text_forward(
        &self,
        epoch: &Epoch,
        dropout: Option<crate::network::Dropout<'_>>,
    ) -> candle_core::Result<Forward> {
        let (index, time) = (self.progress.block, self.options.bptt);
        let block = epoch.lanes().block(index, time);
        let (inputs, targets) = tensors(&block)?;
        let packing = Packing::rectangle(block.time, self.options.batch);
        let network = self.parameters.network();
        let (hidden, next) = network.hidden(&inputs, &packing, &self.carried, dropout)?;
        let positions = epoch.positions(index, time);
        let loss = self.objective.loss(&network.logits(&hidden)?, &targets, positions)?;
        Ok(Forward { loss, next: Some(next), read: block.targets.len() })
    }

    /// Validates, notes whether that is the best, and arranges the next epoch.
    pub(crate) fn end_epoch(&mut self) -> Result<EpochEnd, TrainError> {
        let network = self.parameters.network();
        let nats = match &self.reading {
            Reading::Text(texts) => mean_nats(network, texts.validation(), self.options.bptt)?,
            Reading::Lines(lines) => line_step::mean_nats(network, lines.validation())?,
        };
        let progress = &mut self.progress;
        let improved = progress.best.is_none_or(|best| nats < best.nats);
        progress.epoch += 1;
        progress.block = 0;
        if improved {
            progress.best = Some(Best { nats, epoch: progress.epoch });
            progress.epochs_since_best = 0;
        } else {
            progress.epochs_since_best += 1;
            progress.plateaus += 1;
        }
        self.epoch = self.reading.epoch(self.progress.epoch)?;
        self.carried = zero_state(self.config(), self.options.batch)?;
        Ok(EpochEnd { nats, improved })
    }

    /// The mean cross entropy with the training text in nats per token since the last call, and that with the teacher.
    pub(crate) fn take_mean_nats(&mut self) -> (f64, Option<f64>) {
        let progress = &mut self.progress;
        let tokens = progress.nats_tokens.max(1) as f64;
        let (hard, soft) = (progress.nats / tokens, progress.soft_nats / tokens);
        (progress.nats, progress.soft_nats, progress.nats_tokens) = (0.0, 0.0, 0);
        (hard, self.options.distillation.map(|_| soft))
    }

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64 {
        let Progress { step, epoch, plateaus, .. } = self.progress;
        let steps = (self.steps_per_epoch() * self.options.epochs) as u64;
        self.options.decay.rate(self.options.learning_rate, Place { step, steps, epoch, plateaus })
    }

    fn advance(&mut self, loss: &Loss, read: usize, learning_rate: f64) {
        let progress = &mut self.progress;
        progress.step += 1;
        progress.block += 1;
        progress.tokens += read as u64;
        progress.nats += loss.nats * loss.tokens as f64;
        progress.soft_nats += loss.soft_nats.unwrap_or_default() * loss.tokens as f64;
        progress.nats_tokens += loss.tokens as u64;
        progress.learning_rate = learning_rate;
    }
}

/// What a checkpoint holds of a run, and the way back.
impl Trainer {
    pub(crate) fn header(&self, metrics_length: u64) -> Header {
        Header {
            options: self.options.clone(),
            origin: self.origin.clone(),
            progress: self.progress.clone(),
            metrics_length,
        }
    }

    /// Weights, moments and the carried state, by name.
    pub(crate) fn tensors(&self) -> Result<Tensors, TrainError> {
        let mut tensors = Tensors::new();
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        for (name, variable) in self.parameters.named() {
            tensors.insert(format!("weights.{name}"), (variable.dims().to_vec(), values(variable)?));
        }
        for ((name, variable), moments) in self.parameters.named().zip(self.optimizer.moments()) {
            let shape = variable.dims().to_vec();
            tensors.insert(format!("adam.first.{name}"), (shape.clone(), moments.first.clone()));
            tensors.insert(format!("adam.second.{name}"), (shape, moments.second.clone()));
        }
        for (layer, state) in self.carried.layers().iter().enumerate() {
            tensors.insert(format!("carried.{layer}"), (state.dims().to_vec(), values(state)?));
        }
        Ok(tensors)
    }

    /// Takes the place of the run that wrote `header` and `tensors`. The run must have begun with what this one
    /// began with; `unusable` makes the error for tensors that don't fit.
    pub(crate) fn restore(
        &mut self,
        header: Header,
        mut tensors: Tensors,
        unusable: impl Fn(String) -> TrainError,
    ) -> Result<(), TrainError> {
        self.check_same(&header)?;
        let mut take = |name: String, shape: &[usize]| match tensors.remove(&name) {
            Some((found, values)) if found == shape => Ok(values),
            Some((found, _)) => {
                Err(unusable(format!("tensor {name} has shape {found:?}, expected is {shape:?}")))
            }
            None => Err(unusable(format!("it has no tensor {name}"))),
        };
        for (name, variable) in self.parameters.named() {
            let values = take(format!("weights.{name}"), variable.dims())?;
            variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu)?)?;
        }
        let named: Vec<(&str, &Var)> = self.parameters.named().collect();
        for ((name, variable), moments) in named.into_iter().zip(self.optimizer.moments_mut()) {
            moments.first = take(format!("adam.first.{name}"), variable.dims())?;
            moments.second = take(format!("adam.second.{name}"), variable.dims())?;
        }
        let carried = self.carried.layers().iter().enumerate().map(|(layer, state)| {
            let values = take(format!("carried.{layer}"), state.dims())?;
            Ok(Tensor::from_vec(values, state.shape(), &Device::Cpu)?)
        });
        self.carried = NetworkState::from_layers(carried.collect::<Result<_, TrainError>>()?);
        // Every epoch has as many steps and tokens as this one.
        if header.progress.block > self.steps_per_epoch() {
            return Err(unusable("its position is beyond the end of the text".to_owned()));
        }
        if !self.is_possible(&header.progress) {
            return Err(unusable("its progress is that of no run with these options".to_owned()));
        }
        self.epoch = self.reading.epoch(header.progress.epoch)?;
        self.progress = header.progress;
        Ok(())
    }

    /// Whether the numbers of a progress belong together, so that counting goes on from them.
    fn is_possible(&self, progress: &Progress) -> bool {
        let Progress { step, epoch, block, tokens, epochs_since_best, plateaus, .. } = *progress;
        let (steps, per_epoch) = (self.steps_per_epoch() as u64, self.tokens_per_epoch() as u64);
        epoch <= self.options.epochs
            // The epoch is no more than the options say, so none of this overflows.
            && step == epoch as u64 * steps + block as u64
            && tokens <= (epoch as u64 + 1) * per_epoch
            && progress.nats_tokens <= tokens
            && progress.nats.is_finite()
            && progress.soft_nats.is_finite()
            && epochs_since_best.max(plateaus) <= epoch
    }

    fn check_same(&self, header: &Header) -> Result<(), TrainError> {
        let differs = |field: &str, stored: &str, given: &str| {
            Err(TrainError::Differs { field: field.into(), stored: stored.into(), given: given.into() })
        };
        if let Some((field, stored, given)) = TrainingOptions::difference(&header.options, &self.options) {
            return differs(&field, &stored, &given);
        }
        if let Some((field, stored, given)) = header.origin.difference(&self.origin) {
            return differs(field, &stored, &given);
        }
        Ok(())
    }
}

fn zero_state(config: &Config, batch: usize) -> candle_core::Result<NetworkState> {
    let zero = || Tensor::zeros((2, batch, config.hidden_size), DType::F32, &Device::Cpu);
    Ok(NetworkState::from_layers((0..config.layers).map(|_| zero()).collect::<Result<_, _>>()?))
}
