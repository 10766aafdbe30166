//! A training run from its first step, or from where it stopped, to its end: intervals and reports.
//! Knows nothing about how progress is shown or why it is asked to stop.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::TrainError;
use super::initial::check_vocabulary;
use super::material::Material;
use super::metrics::MetricsLine;
use super::options::TrainingOptions;
use super::output::Output;
use super::trainer::{EpochEnd, Trainer};

/// Where a run writes, and how often.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The model directory that the run makes.
    pub directory: PathBuf,
    /// The vocabulary as `tokenizer.json`.
    pub tokenizer_json: String,
    /// Whether to go on with the run that is in the directory.
    pub resume: bool,
    /// How often a checkpoint is written; all that a killed run loses is what came since the last one.
    pub checkpoint_every: CheckpointInterval,
    /// How many steps lie between two lines of the metrics.
    pub metrics_every: u64,
}

/// How often a checkpoint is written, besides at every epoch's end, before and after its validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointInterval {
    /// After so many steps.
    Steps(u64),
    /// After so much time.
    Time(Duration),
}

/// What an observer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Before the first step: how large the run is and where it begins.
    Started {
        /// Parameters of the model.
        parameters: u64,
        /// Tokens of the whole run, if it does not stop early.
        tokens: u64,
        /// Tokens that an earlier part of the run has done.
        done: u64,
    },
    /// After a step.
    Step {
        /// Tokens trained on so far.
        tokens: u64,
        /// The present epoch, from 1.
        epoch: usize,
    },
    /// After an epoch's validation.
    Validation {
        /// The line that was added to the metrics.
        line: MetricsLine,
        /// Whether the weights were saved as the best so far.
        improved: bool,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done, or none was better for as many as the patience allows. The directory holds the best
    /// epoch's model.
    Finished {
        /// The epoch of the saved weights, from 1.
        best_epoch: usize,
        /// Their validation perplexity.
        perplexity: f64,
    },
    /// The observer asked to stop; a checkpoint is written.
    Stopped,
}

/// Trains, and leaves a model directory with `config.json`, `tokenizer.json`, `model.safetensors`, `metrics.jsonl`
/// and `checkpoint/`.
///
/// Truncated back-propagation through time over contiguous lanes of the text, with the state carried from block to
/// block and reset at each epoch. The same options, material and build give the same weights to the bit, interrupted
/// or not. `observe` is told of every step; [`ControlFlow::Break`] makes the run write a checkpoint and return.
/// `material` is [`Texts`](super::Texts), where there is no teacher and no model to begin with.
///
/// # Errors
/// Options outside their ranges, texts too short, a teacher of another text, vocabulary or temperature, a model of another shape
/// or vocabulary to begin with, a directory that has another run or none to resume, files that can't be read or
/// written, and a loss that is no number any more.
pub fn train(
    options: TrainingOptions,
    material: impl Into<Material>,
    settings: &RunSettings,
    observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    let material = material.into();
    if let Some(model) = &material.initial {
        check_vocabulary(model, &settings.tokenizer_json)?;
    }
    let mut trainer = Trainer::new(options, material)?;
    let mut output = match settings.resume {
        true => Output::resume(&settings.directory, &mut trainer)?,
        false => Output::create(&settings.directory, &settings.tokenizer_json, &trainer)?,
    };
    let done = trainer.progress().tokens;
    let tokens = (trainer.tokens_per_epoch() * trainer.options().epochs) as u64;
    let parameters = trainer.config().parameters();
    if observe(Event::Started { parameters, tokens, done }).is_break() {
        return Ok(Outcome::Stopped);
    }
    run(&mut trainer, &mut output, settings, observe)
}

fn run(
    trainer: &mut Trainer,
    output: &mut Output,
    settings: &RunSettings,
    observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    let mut speed = Speed::new(trainer.progress().tokens);
    let mut last = (Instant::now(), trainer.progress().step);
    loop {
        if trainer.epoch_is_done() {
            // A validation may take longer than an interval, and a run that is killed in it keeps the epoch.
            if trainer.progress().step > last.1 {
                output.save_checkpoint(trainer)?;
            }
            let end = trainer.end_epoch()?;
            if end.improved {
                output.save_model(trainer)?;
            }
            let line = line(trainer, Some(end), &mut speed);
            output.append_metrics(&line)?;
            output.save_checkpoint(trainer)?;
            last = (Instant::now(), trainer.progress().step);
            let flow = observe(Event::Validation { line, improved: end.improved });
            if flow.is_break() && !trainer.is_over() {
                return Ok(Outcome::Stopped);
            }
        }
        if trainer.is_over() {
            return Ok(finished(trainer));
        }
        trainer.step()?;
        let step = trainer.progress().step;
        if step.is_multiple_of(settings.metrics_every.max(1)) && !trainer.epoch_is_done() {
            let line = line(trainer, None, &mut speed);
            output.append_metrics(&line)?;
        }
        let epoch = trainer.progress().epoch + 1;
        let stop = observe(Event::Step { tokens: trainer.progress().tokens, epoch }).is_break();
        let due = match settings.checkpoint_every {
            CheckpointInterval::Steps(steps) => step - last.1 >= steps,
            CheckpointInterval::Time(time) => last.0.elapsed() >= time,
        };
        if due || stop {
            output.save_checkpoint(trainer)?;
            last = (Instant::now(), step);
        }
        if stop {
            return Ok(Outcome::Stopped);
        }
    }
}

fn finished(trainer: &Trainer) -> Outcome {
    let best = trainer.progress().best;
    Outcome::Finished {
        best_epoch: best.map_or(0, |best| best.epoch),
        perplexity: best.map_or(f64::NAN, |best| best.nats.exp()),
    }
}

fn line(trainer: &mut Trainer, end: Option<EpochEnd>, speed: &mut Speed) -> MetricsLine {
    let tokens = trainer.progress().tokens;
    let (train_nats, soft_nats) = trainer.take_mean_nats();
    MetricsLine {
        step: trainer.progress().step,
        epoch: trainer.progress().epoch + usize::from(end.is_none()),
        tokens,
        train_nats,
        soft_nats,
        valid_nats: end.map(|end| end.nats),
        valid_perplexity: end.map(|end| end.nats.exp()),
        learning_rate: trainer.progress().learning_rate,
        tokens_per_second: speed.since_last(tokens),
    }
}

/// Tokens in a second of wall time between two lines of the metrics.
struct Speed {
    at: Instant,
    tokens: u64,
}

impl Speed {
    fn new(tokens: u64) -> Self {
        Self { at: Instant::now(), tokens }
    }

    fn since_last(&mut self, tokens: u64) -> f64 {
        let before = std::mem::replace(self, Self::new(tokens));
        let seconds = (self.at - before.at).as_secs_f64().max(1e-9);
        ((tokens - before.tokens) as f64 / seconds * 10.0).round() / 10.0
    }
}
