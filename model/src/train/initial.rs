//! The model that a run begins with instead of random weights: whether it fits, and its values.
//! Knows nothing about training.

use candle_core::{DType, Device};
use chorus_text::Vocabulary;

use super::error::TrainError;
use super::parameters::Parameters;
use crate::directory::ModelParts;
use crate::weights::check_names;

/// Gives `parameters` the model's values, where it has the same tensors with the same shapes. Returns the model's fingerprint.
pub(crate) fn begin_with(parameters: &Parameters, model: &ModelParts) -> Result<String, TrainError> {
    let found = model.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
    check_names(found, &parameters.config().tensor_shapes()).map_err(TrainError::Initial)?;
    for (name, variable) in parameters.named() {
        if let Some(tensor) = model.tensors.get(name) {
            // A copy: the run changes its variables in place.
            variable.set(&tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)?;
        }
    }
    model.fingerprint().map_err(TrainError::Initial)
}

/// Holds the model's vocabulary against that of the run: ids that mean other tokens would have the same shapes.
pub(crate) fn check_vocabulary(model: &ModelParts, tokenizer_json: &str) -> Result<(), TrainError> {
    match Vocabulary::from_json(tokenizer_json.as_bytes()) {
        Ok(vocabulary) if vocabulary.fingerprint() == model.vocabulary.fingerprint() => Ok(()),
        _ => Err(TrainError::InitialVocabulary),
    }
}
