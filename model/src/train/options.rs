//! What a training run is told. A checkpoint holds a copy, since a run is resumed with what it began with.
//! Knows nothing about command lines.

use serde::{Deserialize, Serialize};

use super::distillation::Distillation;
use super::error::TrainError;
use super::lines::LineOptions;
use super::optimizer::OptimizerKind;
use super::order::DataOrder;
use super::schedule::Decay;
use crate::config::{Config, FORMAT, Start};
use crate::weights::WeightType;

/// What determines a run's weights, together with its texts and its vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingOptions {
    /// The model's name.
    pub name: String,
    /// Where the vocabulary comes from, in words; only compared when a run is resumed.
    pub tokenizer: String,
    /// The embedding's size E.
    pub embedding_size: usize,
    /// The hidden size H of every layer.
    pub hidden_size: usize,
    /// The number of LSTM layers.
    pub layers: usize,
    /// Whether the output layer uses the embedding's matrix; needs E = H.
    pub tied: bool,
    /// What the first token is conditioned on.
    pub start: Start,
    /// The forget gates' initial bias; without it they begin like every other parameter.
    pub forget_bias: Option<f32>,
    /// The probability of dropping an element of a non-recurrent connection.
    pub dropout: f64,
    /// The number of lanes, or of lines that are read side by side.
    pub batch: usize,
    /// The number of time steps through which gradients flow; through lines they flow from the end to the beginning.
    pub bptt: usize,
    /// The rule that turns gradients into updates.
    pub optimizer: OptimizerKind,
    /// The initial learning rate.
    pub learning_rate: f64,
    /// How the learning rate falls.
    pub decay: Decay,
    /// The largest norm of all gradients together.
    pub clip: f64,
    /// The largest number of passes through the text.
    pub epochs: usize,
    /// The run ends after so many epochs in sequence without a better validation perplexity.
    pub patience: usize,
    /// What all random numbers follow from.
    pub seed: u64,
    /// The order of the training text.
    pub order: DataOrder,
    /// How lines are learned from, if each is a sequence of its own.
    #[serde(default)]
    pub lines: Option<LineOptions>,
    /// How a teacher's distributions are learned from, if there is a teacher.
    #[serde(default)]
    pub distillation: Option<Distillation>,
    /// The type of the saved weights. Training itself computes in f32.
    #[serde(with = "WeightTypeWords")]
    pub weight_type: WeightType,
}

/// [`WeightType`] as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(remote = "WeightType", rename_all = "snake_case")]
enum WeightTypeWords {
    F32,
    F16,
    Bf16,
}

impl TrainingOptions {
    /// Checks every number against its range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let check = |fits: bool, field, found: &dyn ToString, allowed| match fits {
            true => Ok(()),
            false => Err(TrainError::Option { field, found: found.to_string(), allowed }),
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        check((0.0..1.0).contains(&self.dropout), "dropout", &self.dropout, "0 to below 1")?;
        check((1..=65_536).contains(&self.batch), "batch", &self.batch, "1 to 65536")?;
        check((1..=65_536).contains(&self.bptt), "bptt", &self.bptt, "1 to 65536")?;
        check(positive(self.learning_rate), "learning rate", &self.learning_rate, "a number above 0")?;
        check(positive(self.clip), "clip", &self.clip, "a number above 0")?;
        check((1..=100_000).contains(&self.epochs), "epochs", &self.epochs, "1 to 100000")?;
        check(self.patience >= 1, "patience", &self.patience, "1 or more")?;
        let bias = self.forget_bias.unwrap_or_default();
        check(bias.is_finite(), "forget bias", &bias, "a finite number")?;
        if let Some(LineOptions { context_weight, .. }) = &self.lines {
            check((0.0..=1.0).contains(context_weight), "context weight", context_weight, "0 to 1")?;
        }
        if let Some(distillation) = &self.distillation {
            distillation.validate()?;
        }
        match self.decay {
            Decay::Epochs { factor, .. } | Decay::Plateau { factor } => {
                check(factor > 0.0 && factor <= 1.0, "decay factor", &factor, "above 0 to 1")
            }
            Decay::None | Decay::Cosine => Ok(()),
        }
    }

    /// The model that a run makes, for a vocabulary of `vocab_size` tokens.
    pub fn config(&self, vocab_size: usize) -> Result<Config, TrainError> {
        let config = Config {
            format: FORMAT,
            name: self.name.clone(),
            vocab_size,
            embedding_size: Some(self.embedding_size),
            hidden_size: self.hidden_size,
            layers: self.layers,
            tied: self.tied,
            lstm_bias: true,
            output_bias: true,
            start: self.start,
            end: self.lines.as_ref().map(|lines| lines.end),
        };
        config.validate()?;
        Ok(config)
    }

    /// The first option in which `other` differs: its name, our value, and the other's.
    ///
    /// Both sides are compared as they are written down, so a number that was written and read again is the same.
    pub(crate) fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let fields = |options| match serde_json::to_value(options) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        ours.into_iter().find_map(|(field, ours)| {
            let (ours, theirs) = (ours.to_string(), theirs[&field].to_string());
            (ours != theirs).then(|| (field.replace('_', " "), ours, theirs))
        })
    }
}
