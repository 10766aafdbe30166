//! What a run is made from, besides its options: texts, a teacher, a model to begin with.
//! Knows nothing about how they are used.

use super::reading::TrainingData;
use super::teacher::SoftTargets;
use crate::directory::ModelParts;

/// What a run is made from. Texts or lines alone are enough.
#[derive(Clone, Debug)]
pub struct Material {
    /// What is learned from, and what decides when to stop.
    pub data: TrainingData,
    /// What a teacher says of the training text; its options are [`Distillation`](super::Distillation).
    pub teacher: Option<SoftTargets>,
    /// A model of the same shape and vocabulary, with whose weights the run begins; random ones otherwise.
    pub initial: Option<ModelParts>,
}

impl<D: Into<TrainingData>> From<D> for Material {
    fn from(data: D) -> Self {
        Self { data: data.into(), teacher: None, initial: None }
    }
}
