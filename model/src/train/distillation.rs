//! How a student learns from a teacher beside its text: what the options say of it, and the loss of a block.
//! Knows nothing about where the teacher's distributions come from.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::loss::cross_entropy;
use super::reading::TrainingData;
use super::soft_loss::hard_and_soft_cross_entropy;
use super::teacher::{SoftTargets, TEMPERATURES};
use super::texts::Texts;

/// How much of a student's loss is the teacher's (Hinton, Vinyals and Dean 2015):
/// λ · CE(text) + (1 - λ) · T² · CE(teacher at T, student at T).
///
/// The gradients of the second cross entropy fall with 1/T²; T² keeps their size, whatever the temperature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// λ: the weight of the cross entropy with the text itself.
    pub hard_weight: f64,
    /// T: what the student's logits are divided by. It is the one at which the teacher gave its distributions.
    pub temperature: f64,
}

/// What a run minimises.
pub(crate) enum Objective {
    /// The cross entropy with the text.
    Text,
    /// A mixture of that and the cross entropy with a teacher.
    Taught { distillation: Distillation, teacher: Arc<SoftTargets> },
}

/// The losses of a block, in nats per token.
pub(crate) struct Loss {
    /// What is minimised.
    pub(crate) total: Tensor,
    /// The cross entropy with the text.
    pub(crate) nats: f64,
    /// That with the teacher, without the factor T².
    pub(crate) soft_nats: Option<f64>,
    /// The number of tokens that `nats` is a mean of.
    pub(crate) tokens: usize,
}

impl Distillation {
    /// Checks both numbers against their ranges.
    pub(crate) fn validate(&self) -> std::result::Result<(), TrainError> {
        let check = |fits: bool, field, found: f64, allowed| match fits {
            true => Ok(()),
            false => Err(TrainError::Option { field, found: found.to_string(), allowed }),
        };
        let [least, largest] = TEMPERATURES;
        check((0.0..=1.0).contains(&self.hard_weight), "hard weight", self.hard_weight, "0 to 1")?;
        let fits = (least..=largest).contains(&self.temperature);
        check(fits, "temperature", self.temperature, "0.1 to 20")
    }
}

impl Objective {
    /// Holds the options against the teacher, and the teacher against the training text.
    pub(crate) fn new(
        distillation: Option<Distillation>,
        teacher: Option<SoftTargets>,
        data: &TrainingData,
    ) -> std::result::Result<Self, TrainError> {
        let (distillation, teacher) = match (distillation, teacher) {
            (None, None) => return Ok(Self::Text),
            (Some(distillation), Some(teacher)) => (distillation, teacher),
            (Some(_), None) => return Err(TrainError::NoTeacher),
            (None, Some(_)) => return Err(TrainError::UnusedTeacher),
        };
        let TrainingData::Text(Texts { training, vocab_size, .. }) = data else {
            return Err(TrainError::LinesWithTeacher);
        };
        let same = |field, teacher: String, run: String| match teacher == run {
            true => Ok(()),
            false => Err(TrainError::OtherTeacher { field, teacher, run }),
        };
        same("number of tokens", teacher.len().to_string(), training.len().to_string())?;
        same("vocabulary size", teacher.vocab_size().to_string(), vocab_size.to_string())?;
        // Written down and read again, or taken from an f32, it may differ in its last places.
        if (teacher.temperature() / distillation.temperature - 1.0).abs() > 1e-6 {
            let (teacher, run) = (teacher.temperature().to_string(), distillation.temperature.to_string());
            return Err(TrainError::OtherTeacher { field: "temperature", teacher, run });
        }
        Ok(Self::Taught { distillation, teacher: Arc::new(teacher) })
    }

    /// The hash of the teacher's distributions, if there is one.
    pub(crate) fn teacher_hash(&self) -> Option<String> {
        match self {
            Self::Text => None,
            Self::Taught { teacher, .. } => Some(teacher.hash()),
        }
    }

    /// The loss of a block of `[N, V]` logits beside its N targets, which stand at `positions` of the training text.
    pub(crate) fn loss(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        positions: impl Iterator<Item = usize>,
    ) -> Result<Loss> {
        let tokens = targets.elem_count();
        match self {
            Self::Text => {
                let total = cross_entropy(logits, targets)?;
                let nats = f64::from(total.to_scalar::<f32>()?);
                Ok(Loss { total, nats, soft_nats: None, tokens })
            }
            Self::Taught { distillation, teacher } => {
                let teacher = Arc::clone(teacher);
                let losses = hard_and_soft_cross_entropy(logits, targets, teacher, positions.collect())?;
                let Distillation { hard_weight, temperature } = distillation;
                let soft_weight = (1.0 - hard_weight) * temperature * temperature;
                let (hard, soft) = (losses.get(0)?, losses.get(1)?);
                let total = (hard.affine(*hard_weight, 0.0)? + soft.affine(soft_weight, 0.0)?)?;
                let nats = f64::from(hard.to_scalar::<f32>()?);
                let soft_nats = Some(f64::from(soft.to_scalar::<f32>()?));
                Ok(Loss { total, nats, soft_nats, tokens })
            }
        }
    }
}
