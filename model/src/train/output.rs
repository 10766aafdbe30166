//! The directory of a training run: the model as it becomes better, the metrics, the checkpoint.
//! Knows nothing about when they are written.

use std::fs;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::error::TrainError;
use super::metrics::{MetricsLine, MetricsLog};
use super::trainer::Trainer;
use crate::directory::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::files::write_atomically;
use crate::weights::{self, Tensors};

const CHECKPOINT_DIRECTORY: &str = "checkpoint";
const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
const METRICS_FILE: &str = "metrics.jsonl";

/// The files of a run.
pub(crate) struct Output {
    directory: PathBuf,
    metrics: MetricsLog,
}

impl Output {
    /// Begins in an empty directory, which is made if it is not there.
    pub(crate) fn create(
        directory: &Path,
        tokenizer_json: &str,
        trainer: &Trainer,
    ) -> Result<Self, TrainError> {
        let occupied = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(TrainError::OutputNotEmpty { path: directory.to_owned() });
        }
        let checkpoints = directory.join(CHECKPOINT_DIRECTORY);
        fs::create_dir_all(&checkpoints).map_err(|source| written(&checkpoints, source))?;
        let config = serde_json::to_string_pretty(trainer.config());
        let config = config.map_err(|error| written(directory, error.into()))?;
        write(&directory.join(CONFIG_FILE), format!("{config}\n").as_bytes())?;
        write(&directory.join(TOKENIZER_FILE), tokenizer_json.as_bytes())?;
        let metrics = MetricsLog::open(&directory.join(METRICS_FILE), 0)?;
        let mut output = Self { directory: directory.to_owned(), metrics };
        // From the first step on there is something to resume.
        output.save_checkpoint(trainer)?;
        Ok(output)
    }

    /// Goes on in the directory of a run, and brings `trainer` to where that run stood.
    pub(crate) fn resume(directory: &Path, trainer: &mut Trainer) -> Result<Self, TrainError> {
        let path = directory.join(CHECKPOINT_DIRECTORY).join(CHECKPOINT_FILE);
        if !path.exists() {
            return Err(TrainError::NothingToResume { path: directory.to_owned() });
        }
        let (header, tensors) = checkpoint::read(&path)?;
        let metrics_length = header.metrics_length;
        let unusable = |reason| TrainError::Checkpoint { path: path.clone(), reason };
        trainer.restore(header, tensors, unusable)?;
        remove_torn_checkpoints(&path);
        let metrics = MetricsLog::open(&directory.join(METRICS_FILE), metrics_length)?;
        Ok(Self { directory: directory.to_owned(), metrics })
    }

    pub(crate) fn append_metrics(&mut self, line: &MetricsLine) -> Result<(), TrainError> {
        self.metrics.append(line)
    }

    pub(crate) fn save_checkpoint(&mut self, trainer: &Trainer) -> Result<(), TrainError> {
        let path = self.directory.join(CHECKPOINT_DIRECTORY).join(CHECKPOINT_FILE);
        let header = trainer.header(self.metrics.sync()?);
        write(&path, &checkpoint::encode(&path, &header, &trainer.tensors()?)?)
    }

    /// Saves the weights as the best so far. This comes before the checkpoint that calls them so: a run that dies
    /// between the two takes the same steps again and saves the same weights.
    pub(crate) fn save_model(&self, trainer: &Trainer) -> Result<(), TrainError> {
        let parameters = trainer.parameters().named();
        let tensors: Tensors =
            parameters.map(|(name, variable)| (name.to_owned(), variable.as_tensor().clone())).collect();
        let bytes = weights::encode(&tensors, trainer.config(), trainer.options().weight_type)?;
        write(&self.directory.join(WEIGHTS_FILE), &bytes)
    }
}

/// A run that was killed while it wrote a checkpoint leaves a part of it under a temporary name. Nobody reads it, so
/// one that can't be removed does no harm.
fn remove_torn_checkpoints(path: &Path) {
    let siblings = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    for entry in siblings.into_iter().flatten().flatten() {
        if entry.path() != path {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_atomically(path, bytes).map_err(|source| written(path, source))
}

fn written(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File { path: path.to_owned(), action: "written", source }
}
