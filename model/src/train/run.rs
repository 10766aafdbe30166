//! A training run on the disk: its directory, its intervals, its reports, and going on where it stopped.
//! Knows nothing about how progress is shown or why it is asked to stop.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};

use super::checkpoint;
use super::error::TrainError;
use super::files::write_atomically;
use super::metrics::{MetricsLine, MetricsLog};
use super::options::{Precision, TrainingOptions};
use super::texts::Texts;
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

/// How often a checkpoint is written, besides at every epoch's end.
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

/// The files of a run.
struct Files {
    directory: PathBuf,
    metrics: MetricsLog,
}

/// Trains, and leaves a model directory with `config.json`, `tokenizer.json`, `model.safetensors`, `metrics.jsonl`
/// and `checkpoint/`.
///
/// Truncated back-propagation through time over contiguous lanes of the text, with the state carried from block to
/// block and reset at each epoch. The same options, texts and build give the same weights to the bit, interrupted
/// or not. `observe` is told of every step; [`ControlFlow::Break`] makes the run write a checkpoint and return.
///
/// # Errors
/// Options outside their ranges, texts too short, a directory that has another run or none to resume, files that
/// can't be read or written, and a loss that is no number any more.
pub fn train(
    options: TrainingOptions,
    texts: Texts,
    settings: &RunSettings,
    observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    let mut trainer = Trainer::new(options, texts)?;
    let mut files = if settings.resume {
        Files::resume(&settings.directory, &mut trainer)?
    } else {
        Files::create(settings, &trainer)?
    };
    let done = trainer.progress().tokens;
    let blocks = trainer.steps_per_epoch() * trainer.options().epochs;
    let tokens = (blocks * trainer.options().bptt * trainer.options().batch) as u64;
    let parameters = trainer.config().parameters();
    if observe(Event::Started {
        parameters,
        tokens,
        done,
    })
    .is_break()
    {
        return Ok(Outcome::Stopped);
    }
    run(&mut trainer, &mut files, settings, observe)
}

fn run(
    trainer: &mut Trainer,
    files: &mut Files,
    settings: &RunSettings,
    observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    let mut speed = Speed::new(trainer.progress().tokens);
    let mut last = (Instant::now(), trainer.progress().step);
    let mut learning_rate = trainer.learning_rate();
    loop {
        if trainer.epoch_is_done() {
            let end = trainer.end_epoch()?;
            if end.improved {
                files.save_model(trainer)?;
            }
            let line = line(trainer, learning_rate, Some(end), &mut speed);
            files.metrics.append(&line)?;
            files.save_checkpoint(trainer)?;
            last = (Instant::now(), trainer.progress().step);
            let flow = observe(Event::Validation {
                line,
                improved: end.improved,
            });
            if flow.is_break() && !trainer.is_over() {
                return Ok(Outcome::Stopped);
            }
        }
        if trainer.is_over() {
            return Ok(finished(trainer));
        }
        learning_rate = trainer.step()?.learning_rate;
        let step = trainer.progress().step;
        if step.is_multiple_of(settings.metrics_every.max(1)) && !trainer.epoch_is_done() {
            let line = line(trainer, learning_rate, None, &mut speed);
            files.metrics.append(&line)?;
        }
        let epoch = trainer.progress().epoch + 1;
        let stop = observe(Event::Step {
            tokens: trainer.progress().tokens,
            epoch,
        })
        .is_break();
        let due = match settings.checkpoint_every {
            CheckpointInterval::Steps(steps) => step - last.1 >= steps,
            CheckpointInterval::Time(time) => last.0.elapsed() >= time,
        };
        if due || stop {
            files.save_checkpoint(trainer)?;
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

fn line(trainer: &mut Trainer, learning_rate: f64, end: Option<EpochEnd>, speed: &mut Speed) -> MetricsLine {
    let tokens = trainer.progress().tokens;
    MetricsLine {
        step: trainer.progress().step,
        epoch: trainer.progress().epoch + usize::from(end.is_none()),
        tokens,
        train_nats: trainer.take_mean_nats(),
        valid_nats: end.map(|end| end.nats),
        valid_perplexity: end.map(|end| end.nats.exp()),
        learning_rate,
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
        Self {
            at: Instant::now(),
            tokens,
        }
    }

    fn since_last(&mut self, tokens: u64) -> f64 {
        let before = std::mem::replace(self, Self::new(tokens));
        let seconds = (self.at - before.at).as_secs_f64().max(1e-9);
        ((tokens - before.tokens) as f64 / seconds * 10.0).round() / 10.0
    }
}

impl Files {
    fn create(settings: &RunSettings, trainer: &Trainer) -> Result<Self, TrainError> {
        let directory = settings.directory.clone();
        let occupied = fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(TrainError::OutputNotEmpty { path: directory });
        }
        let failed = |source| TrainError::File {
            path: directory.clone(),
            action: "written",
            source,
        };
        fs::create_dir_all(directory.join("checkpoint")).map_err(failed)?;
        let config = serde_json::to_string_pretty(trainer.config()).map_err(|error| failed(error.into()))?;
        write_atomically(&directory.join("config.json"), format!("{config}\n").as_bytes())?;
        write_atomically(
            &directory.join("tokenizer.json"),
            settings.tokenizer_json.as_bytes(),
        )?;
        let metrics = MetricsLog::open(&directory.join("metrics.jsonl"), 0)?;
        let mut files = Self { directory, metrics };
        // From the first step on there is something to resume.
        files.save_checkpoint(trainer)?;
        Ok(files)
    }

    fn resume(directory: &Path, trainer: &mut Trainer) -> Result<Self, TrainError> {
        let path = checkpoint_path(directory);
        if !path.exists() {
            return Err(TrainError::NothingToResume {
                path: directory.to_owned(),
            });
        }
        let (header, tensors) = checkpoint::read(&path)?;
        let metrics_length = header.metrics_length;
        trainer.restore(header, tensors, |reason| TrainError::Checkpoint {
            path: path.clone(),
            reason,
        })?;
        let metrics = MetricsLog::open(&directory.join("metrics.jsonl"), metrics_length)?;
        Ok(Self {
            directory: directory.to_owned(),
            metrics,
        })
    }

    fn save_checkpoint(&mut self, trainer: &Trainer) -> Result<(), TrainError> {
        let header = trainer.header(self.metrics.sync()?);
        checkpoint::write(&checkpoint_path(&self.directory), &header, &trainer.tensors()?)
    }

    /// Saves the weights as the best so far. This comes before the checkpoint that calls them so: a run that dies
    /// between the two takes the same steps again and saves the same weights.
    fn save_model(&self, trainer: &Trainer) -> Result<(), TrainError> {
        let dtype = match trainer.options().precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
        };
        let convert = |(name, variable): (&str, &candle_core::Var)| {
            Ok((name.to_owned(), variable.as_tensor().to_dtype(dtype)?))
        };
        let tensors = trainer.parameters().named().map(convert);
        let tensors = tensors.collect::<candle_core::Result<HashMap<String, Tensor>>>()?;
        let path = self.directory.join("model.safetensors");
        let bytes = safetensors::serialize(&tensors, None)
            .map_err(|error| TrainError::Tensor(candle_core::Error::wrap(error)))?;
        write_atomically(&path, &bytes)
    }
}

fn checkpoint_path(directory: &Path) -> PathBuf {
    directory.join("checkpoint").join("checkpoint.safetensors")
}
