//! `metrics.jsonl`: one line of numbers every few steps and at every validation.
//! Knows nothing about how the numbers come about or how they are drawn.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Updates of the weights so far.
    pub step: u64,
    /// The pass through the text, from 1.
    pub epoch: usize,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// The mean cross-entropy on the training text since the last line, in nats per token, dropout being active.
    pub train_nats: f64,
    /// The mean cross-entropy with the teacher over the same tokens, at its temperature; only in a distillation. It falls
    /// to the teacher's own entropy, not to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_nats: Option<f64>,
    /// The mean cross-entropy on the validation text, in nats per token; only on an epoch's last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_nats: Option<f64>,
    /// exp of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_perplexity: Option<f64>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// Tokens trained on in a second of wall time since the last line.
    pub tokens_per_second: f64,
}

/// The open file. A resumed run first cuts off what was written after its checkpoint, so no line is there twice.
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens `path` and keeps its first `length` bytes, which are those up to a checkpoint.
    pub(crate) fn open(path: &Path, length: u64) -> Result<Self, TrainError> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
        let mut file = file.map_err(|source| written(path, source))?;
        // Two runs in one directory would write over each other's checkpoints. The lock ends with the process.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(TrainError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(written(path, source)),
            Ok(()) => {}
        }
        let mut cut = || {
            // A longer file would be filled up with zeros.
            if file.metadata()?.len() < length {
                return Err(std::io::Error::other("it is shorter than the checkpoint says"));
            }
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))
        };
        cut().map_err(|source| written(path, source))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line.
    pub(crate) fn append(&mut self, line: &MetricsLine) -> Result<(), TrainError> {
        let mut text = serde_json::to_string(line).map_err(|error| written(&self.path, error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|source| written(&self.path, source))
    }

    /// Brings the lines to the disk and returns their length in bytes.
    pub(crate) fn sync(&mut self) -> Result<u64, TrainError> {
        let sync = || {
            self.file.sync_all()?;
            Ok(self.file.metadata()?.len())
        };
        sync().map_err(|source| written(&self.path, source))
    }
}

/// Reads a `metrics.jsonl`.
pub fn read_metrics(path: &Path) -> Result<Vec<MetricsLine>, TrainError> {
    let read = |source| TrainError::File { path: path.to_owned(), action: "read", source };
    let lines = BufReader::new(File::open(path).map_err(read)?).lines();
    lines.map(|line| serde_json::from_str(&line.map_err(read)?).map_err(|error| read(error.into()))).collect()
}

fn written(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File { path: path.to_owned(), action: "written", source }
}
