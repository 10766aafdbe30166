//! The texts of a run as tokens: what is checked about them, their hashes, and the arrangement of an epoch.
//! Knows nothing about tensors.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::error::TrainError;
use super::lanes::Lanes;
use super::options::TrainingOptions;
use super::order::{DataOrder, passages, reordered};
use crate::config::Start;

/// The texts that a run learns from and is measured on, encoded by its vocabulary.
#[derive(Clone, Debug)]
pub struct Texts {
    /// The text that the weights are fitted to.
    pub training: Vec<u32>,
    /// The text that decides when to stop.
    pub validation: Vec<u32>,
    /// The number of tokens V of the vocabulary.
    pub vocab_size: usize,
}

/// The texts, arranged as the options say.
pub(crate) struct Arrangement {
    start: Option<u32>,
    training: Vec<u32>,
    passages: Option<Vec<Range<usize>>>,
    batch: usize,
    seed: u64,
    validation: Lanes,
}

/// The training text as one epoch reads it.
pub(crate) struct Epoch {
    lanes: Lanes,
    /// How many tokens of the lanes' stream come before the text: 1 with a start token.
    before: usize,
    /// Where in the text the tokens of the stream stand, if not in its order.
    order: Option<Vec<usize>>,
}

/// SHA-256 of tokens as little-endian bytes, in hexadecimal.
pub(crate) fn hash(tokens: &[u32]) -> String {
    let mut hasher = Sha256::new();
    tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Arrangement {
    pub(crate) fn new(texts: Texts, options: &TrainingOptions) -> Result<Self, TrainError> {
        check("training", &texts.training, texts.vocab_size)?;
        check("validation", &texts.validation, texts.vocab_size)?;
        let start = match options.start {
            Start::Token(token) => Some(token),
            Start::ZeroState => None,
        };
        let passages = match (options.order, start) {
            (DataOrder::Text, _) => None,
            (DataOrder::Passages, None) => return Err(TrainError::NoPassages),
            (DataOrder::Passages, Some(start)) => {
                let passages = passages(&texts.training, start);
                if passages.len() < 2 {
                    return Err(TrainError::NoPassages);
                }
                Some(passages)
            }
        };
        let validation = Lanes::new(stream(start, texts.validation), options.batch, "validation")?;
        let (batch, seed) = (options.batch, options.seed);
        Ok(Self { start, training: texts.training, passages, batch, seed, validation })
    }

    /// The epoch with this number, from 0. Every epoch has as many tokens.
    pub(crate) fn epoch(&self, epoch: usize) -> Result<Epoch, TrainError> {
        let order = self.passages.as_ref().map(|passages| reordered(passages, self.seed, epoch));
        let tokens = match &order {
            Some(order) => order.iter().map(|&position| self.training[position]).collect(),
            None => self.training.clone(),
        };
        let lanes = Lanes::new(stream(self.start, tokens), self.batch, "training")?;
        Ok(Epoch { lanes, before: usize::from(self.start.is_some()), order })
    }

    pub(crate) fn validation(&self) -> &Lanes {
        &self.validation
    }
}

impl Epoch {
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Where in the training text the targets of a block stand, in the order of its rows.
    pub(crate) fn positions(&self, index: usize, time: usize) -> impl Iterator<Item = usize> {
        self.lanes.target_places(index, time).map(|place| {
            let place = place - self.before;
            self.order.as_ref().map_or(place, |order| order[place])
        })
    }
}

/// With a start token, the first token of a text is predicted from it; without, it is only read.
fn stream(start: Option<u32>, mut tokens: Vec<u32>) -> Vec<u32> {
    if let Some(start) = start {
        tokens.insert(0, start);
    }
    tokens
}

pub(crate) fn check(text: &'static str, tokens: &[u32], vocab_size: usize) -> Result<(), TrainError> {
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(&token) => Err(TrainError::TokenOutOfVocabulary { text, token, vocab_size }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::options;
    use super::*;

    proptest! {
        #[test]
        fn every_target_is_the_token_at_its_position(
            passages in prop::collection::vec(1_usize..6, 2..30),
            batch in 1_usize..5, time in 1_usize..9, epoch in 0_usize..3,
            by_passages in any::<bool>(), with_start in any::<bool>(),
        ) {
            // Words that are all different, and two line ends after each passage.
            let mut word = 0;
            let mut training = Vec::new();
            for length in passages {
                training.extend((word..).take(length).map(|word| word + 1));
                training.extend([0, 0]);
                word += length as u32;
            }
            let order = if by_passages { DataOrder::Passages } else { DataOrder::Text };
            let start = if with_start || by_passages { Start::Token(0) } else { Start::ZeroState };
            let options = TrainingOptions { batch, order, start, ..options() };
            let texts = Texts { validation: training.clone(), training: training.clone(), vocab_size: 1000 };
            let epoch = Arrangement::new(texts, &options).unwrap().epoch(epoch).unwrap();
            let mut seen = Vec::new();
            for index in 0..epoch.lanes().blocks(time) {
                let positions: Vec<usize> = epoch.positions(index, time).collect();
                let there: Vec<u32> = positions.iter().map(|&position| training[position]).collect();
                prop_assert_eq!(there, epoch.lanes().block(index, time).targets);
                seen.extend(positions);
            }
            prop_assert_eq!(seen.len(), epoch.lanes().predicted());
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), epoch.lanes().predicted());
        }
    }
}
