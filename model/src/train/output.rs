//! The directory of a training run: the model as it becomes better, the metrics, the checkpoint.
//! Knows nothing about when they are written.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::error::TrainError;
use super::metrics::{MetricsLine, MetricsLog};
use super::trainer::Trainer;
use crate::file_names::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::files::{TEMPORARY_PREFIX, write_atomically};
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
    ///
    /// The checkpoint of step 0 comes after everything that resuming needs: a run that dies before it has left nothing
    /// that is in a new one's way, and one that dies after it can be resumed.
    pub(crate) fn create(
        directory: &Path,
        tokenizer_json: &str,
        trainer: &Trainer,
    ) -> Result<Self, TrainError> {
        if !is_free(directory) {
            return Err(TrainError::OutputNotEmpty { path: directory.to_owned() });
        }
        let checkpoints = directory.join(CHECKPOINT_DIRECTORY);
        fs::create_dir_all(&checkpoints).map_err(|source| written(&checkpoints, source))?;
        let metrics = MetricsLog::open(&directory.join(METRICS_FILE), 0)?;
        // Only now that the lock says that no other run is writing them.
        remove_torn_files(directory);
        let mut output = Self { directory: directory.to_owned(), metrics };
        let config = serde_json::to_string_pretty(trainer.config());
        let config = config.map_err(|error| written(directory, error.into()))?;
        write(&directory.join(CONFIG_FILE), format!("{config}\n").as_bytes())?;
        write(&directory.join(TOKENIZER_FILE), tokenizer_json.as_bytes())?;
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
        let metrics = MetricsLog::open(&directory.join(METRICS_FILE), metrics_length)?;
        // Only now that the lock says that no other run is writing them.
        remove_torn_files(directory);
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

/// Whether a run can begin in a directory: it is not there, is empty, or has only what a run leaves that dies before
/// its first checkpoint. The metrics without a line tell that the config and the tokenizer are such a run's.
fn is_free(directory: &Path) -> bool {
    let begun = fs::metadata(directory.join(METRICS_FILE)).is_ok_and(|metrics| metrics.len() == 0);
    entries(directory).all(|entry| match entry.file_name().to_str() {
        Some(CHECKPOINT_DIRECTORY) => entries(&entry.path()).all(|entry| is_torn(&entry)),
        Some(METRICS_FILE | CONFIG_FILE | TOKENIZER_FILE) => begun,
        _ => is_torn(&entry),
    })
}

/// A run that was killed while it wrote a file leaves a part of it under a temporary name. Nobody reads it, so one
/// that can't be removed does no harm.
fn remove_torn_files(directory: &Path) {
    let checkpoints = entries(&directory.join(CHECKPOINT_DIRECTORY));
    for entry in entries(directory).chain(checkpoints).filter(is_torn) {
        let _ = fs::remove_file(entry.path());
    }
}

fn is_torn(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX)
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_atomically(path, bytes).map_err(|source| written(path, source))
}

fn written(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File { path: path.to_owned(), action: "written", source }
}
