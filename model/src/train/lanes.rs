//! The arrangement of a token stream for truncated back-propagation: contiguous lanes, cut into blocks.
//! Knows nothing about tensors or the model.

use std::ops::Range;

use super::error::TrainError;

/// A token stream cut into `batch` contiguous lanes of the same length, as Zaremba 2014 arranges a text.
///
/// Lane `b` reads `stream[b * length + t]` at time `t` and predicts `stream[b * length + t + 1]`; the fewer than
/// `batch` tokens that are left over at the end are not predicted.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    stream: Vec<u32>,
    batch: usize,
    length: usize,
}

/// Consecutive time steps of all lanes. Both lists are time-major: row `t * batch + b` is lane `b` at time `t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) time: usize,
    pub(crate) inputs: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

impl Lanes {
    /// Arranges `stream`, whose first token is only read, never predicted. `text` names the text for an error.
    pub(crate) fn new(stream: Vec<u32>, batch: usize, text: &'static str) -> Result<Self, TrainError> {
        let predicted = stream.len().saturating_sub(1);
        let length = predicted / batch.max(1);
        if length == 0 {
            return Err(TrainError::TextTooShort { text, tokens: predicted, needed: batch });
        }
        Ok(Self { stream, batch, length })
    }

    /// How many tokens the lanes predict together.
    pub(crate) fn predicted(&self) -> usize {
        self.length * self.batch
    }

    /// The number of lanes.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// The last tokens before each lane but the first, time-major: at most `time` for each lane, and their number.
    pub(crate) fn before_the_others(&self, time: usize) -> (usize, Vec<u32>) {
        let time = time.min(self.length);
        let begins = move |back: usize| (1..self.batch).map(move |lane| lane * self.length - back);
        (time, (1..=time).rev().flat_map(begins).map(|at| self.stream[at]).collect())
    }

    /// The number of blocks of at most `time` steps that cover the lanes.
    pub(crate) fn blocks(&self, time: usize) -> usize {
        self.length.div_ceil(time)
    }

    /// Where in the stream the targets of block `index` stand, in the order of its rows.
    pub(crate) fn target_places(&self, index: usize, time: usize) -> impl Iterator<Item = usize> {
        let (batch, length) = (self.batch, self.length);
        self.times(index, time).flat_map(move |t| (0..batch).map(move |lane| lane * length + t + 1))
    }

    /// Block `index` of the division into blocks of `time` steps; the last one may be shorter.
    pub(crate) fn block(&self, index: usize, time: usize) -> Block {
        let places = self.target_places(index, time);
        let (inputs, targets) = places.map(|at| (self.stream[at - 1], self.stream[at])).unzip();
        Block { time: self.times(index, time).len(), inputs, targets }
    }

    /// The time steps of block `index`.
    fn times(&self, index: usize, time: usize) -> Range<usize> {
        let begin = index * time;
        begin..(begin + time).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_time_major_and_targets_follow_inputs() {
        let lanes = Lanes::new((0..12).collect(), 2, "training").unwrap();
        assert_eq!(lanes.predicted(), 10);
        assert_eq!(lanes.blocks(3), 2);
        let first = Block { time: 3, inputs: vec![0, 5, 1, 6, 2, 7], targets: vec![1, 6, 2, 7, 3, 8] };
        assert_eq!(lanes.block(0, 3), first);
        let last = Block { time: 2, inputs: vec![3, 8, 4, 9], targets: vec![4, 9, 5, 10] };
        assert_eq!(lanes.block(1, 3), last);
        assert_eq!(lanes.target_places(1, 3).collect::<Vec<_>>(), [4, 9, 5, 10]);
        assert_eq!(lanes.before_the_others(3), (3, vec![2, 3, 4]));
    }

    #[test]
    fn a_text_that_does_not_fill_the_lanes_is_refused() {
        let error = Lanes::new(vec![1, 2, 3], 3, "validation").unwrap_err();
        assert_eq!(error.to_string(), "the validation text has 2 tokens, too few for a batch of 3 lanes");
    }

    proptest! {
        #[test]
        fn every_token_of_the_lanes_is_predicted_once(
            tokens in 2usize..300, batch in 1usize..9, time in 1usize..20,
        ) {
            prop_assume!(tokens > batch);
            let lanes = Lanes::new((0..tokens as u32).collect(), batch, "training").unwrap();
            let mut targets: Vec<u32> =
                (0..lanes.blocks(time)).flat_map(|index| lanes.block(index, time).targets).collect();
            targets.sort_unstable();
            prop_assert_eq!(targets, (1..=lanes.predicted() as u32).collect::<Vec<_>>());
            prop_assert!(tokens - 1 - lanes.predicted() < batch);
        }
    }
}
