//! `checkpoint/checkpoint.safetensors`: everything from which a run goes on as if it had not been interrupted.
//! One file, replaced as a whole, so a run that dies at any moment leaves a complete one.
//! Knows nothing about how the training proceeds.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::options::TrainingOptions;
use super::origin::Origin;

/// The key of the header's metadata under which [`Header`] stands as JSON.
const HEADER: &str = "training";

/// What a checkpoint holds besides tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) options: TrainingOptions,
    #[serde(flatten)]
    pub(crate) origin: Origin,
    pub(crate) progress: Progress,
    /// The length of `metrics.jsonl` in bytes at this moment.
    pub(crate) metrics_length: u64,
}

/// Where a run stands. All randomness is a function of the seed and these numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Updates of the weights so far.
    pub(crate) step: u64,
    /// Epochs completed.
    pub(crate) epoch: usize,
    /// Blocks of the present epoch that are done.
    pub(crate) block: usize,
    /// Tokens trained on so far.
    pub(crate) tokens: u64,
    /// The best validation so far.
    pub(crate) best: Option<Best>,
    /// Epochs without a better validation: in sequence, and altogether.
    pub(crate) epochs_since_best: usize,
    pub(crate) plateaus: usize,
    /// The sum of the training loss in nats since the last line of the metrics, and its number of tokens.
    #[serde(with = "exact")]
    pub(crate) nats: f64,
    pub(crate) nats_tokens: u64,
    /// The sum of the cross entropy with the teacher over the same tokens.
    #[serde(default, with = "exact")]
    pub(crate) soft_nats: f64,
    /// The learning rate of the last step; 0 before the first.
    #[serde(with = "exact")]
    pub(crate) learning_rate: f64,
}

/// The best validation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    #[serde(with = "exact")]
    pub(crate) nats: f64,
    pub(crate) epoch: usize,
}

/// Named f32 tensors with their shapes.
pub(crate) type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// `f64` as its bits: a decimal fraction that is read back may differ in the last place.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// A checkpoint as bytes; `path` names it in an error.
pub(crate) fn encode(path: &Path, header: &Header, tensors: &Tensors) -> Result<Vec<u8>, TrainError> {
    let unusable = |reason: String| TrainError::Checkpoint { path: path.to_owned(), reason };
    let header = serde_json::to_string(header).map_err(|error| unusable(error.to_string()))?;
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| unusable(error.to_string()))?;
    let metadata = HashMap::from([(HEADER.to_owned(), header)]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| unusable(error.to_string()))
}

/// Reads a checkpoint.
pub(crate) fn read(path: &Path) -> Result<(Header, Tensors), TrainError> {
    let content = std::fs::read(path).map_err(|source| TrainError::File {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    parse(&content).map_err(|reason| TrainError::Checkpoint { path: path.to_owned(), reason })
}

pub(super) fn parse(content: &[u8]) -> Result<(Header, Tensors), String> {
    let (_, metadata) = SafeTensors::read_metadata(content).map_err(|error| error.to_string())?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEADER));
    let header = header.ok_or_else(|| format!("its header has no {HEADER:?}"))?;
    let header = serde_json::from_str(header).map_err(|error| format!("its header: {error}"))?;
    let tensors = SafeTensors::deserialize(content).map_err(|error| error.to_string())?;
    let tensors = tensors.iter().map(|(name, view)| match view.dtype() {
        Dtype::F32 => {
            let values = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Ok((name.to_owned(), (view.shape().to_vec(), values)))
        }
        other => Err(format!("tensor {name} is {other:?}, expected is F32")),
    });
    Ok((header, tensors.collect::<Result<_, _>>()?))
}
