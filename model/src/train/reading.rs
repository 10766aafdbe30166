//! The two ways of reading: one text from its beginning to its end, or lines, each from its own beginning.
//! Knows nothing about tensors.

use super::error::TrainError;
use super::lines::{LineArrangement, LineEpoch, LineTexts, hash_lines};
use super::options::TrainingOptions;
use super::texts::{Arrangement, Epoch, Texts, hash};

/// What a run reads.
#[derive(Clone, Debug)]
pub enum TrainingData {
    /// Texts as streams, with the state carried through them.
    Text(Texts),
    /// Lines, with a fresh state for each.
    Lines(LineTexts),
}

/// The same, arranged as the options say.
pub(crate) enum Reading {
    Text(Arrangement),
    Lines(LineArrangement),
}

/// One pass through the training data.
pub(crate) enum Pass {
    Text(Epoch),
    Lines(LineEpoch),
}

impl From<Texts> for TrainingData {
    fn from(texts: Texts) -> Self {
        Self::Text(texts)
    }
}

impl From<LineTexts> for TrainingData {
    fn from(texts: LineTexts) -> Self {
        Self::Lines(texts)
    }
}

impl TrainingData {
    pub(crate) fn vocab_size(&self) -> usize {
        match self {
            Self::Text(texts) => texts.vocab_size,
            Self::Lines(texts) => texts.vocab_size,
        }
    }

    /// Hashes of what is learned from and of what it is measured on.
    pub(crate) fn hashes(&self) -> [String; 2] {
        match self {
            Self::Text(texts) => [&texts.training, &texts.validation].map(|text| hash(text)),
            Self::Lines(texts) => [&texts.training, &texts.validation].map(|lines| hash_lines(lines)),
        }
    }
}

impl Reading {
    pub(crate) fn new(data: TrainingData, options: &TrainingOptions) -> Result<Self, TrainError> {
        match data {
            TrainingData::Text(_) if options.lines.is_some() => Err(TrainError::OtherReading),
            TrainingData::Text(texts) => Arrangement::new(texts, options).map(Self::Text),
            TrainingData::Lines(texts) => LineArrangement::new(texts, options).map(Self::Lines),
        }
    }

    /// The epoch with this number, from 0. Every epoch has as many steps and tokens.
    pub(crate) fn epoch(&self, epoch: usize) -> Result<Pass, TrainError> {
        match self {
            Self::Text(texts) => texts.epoch(epoch).map(Pass::Text),
            Self::Lines(lines) => Ok(Pass::Lines(lines.epoch(epoch))),
        }
    }
}

impl Pass {
    /// The number of steps, each of which reads at most `time` tokens of a lane, or whole lines.
    pub(crate) fn steps(&self, time: usize) -> usize {
        match self {
            Self::Text(epoch) => epoch.lanes().blocks(time),
            Self::Lines(epoch) => epoch.batches(),
        }
    }

    /// The number of tokens that are predicted.
    pub(crate) fn tokens(&self) -> usize {
        match self {
            Self::Text(epoch) => epoch.lanes().predicted(),
            Self::Lines(epoch) => epoch.tokens(),
        }
    }
}
