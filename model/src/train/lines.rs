//! Texts of which every line is a sequence of its own: what is checked about them, their hashes, and the batches of an
//! epoch. Knows nothing about tensors.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::line_batch::LineBatch;
use super::options::TrainingOptions;
use super::order::DataOrder;
use super::random::{Purpose, generator, shuffle};
use super::texts::{check, hash};
use crate::config::Start;
use crate::line::Line;

/// The lines that a run learns from and is measured on, encoded by its vocabulary.
#[derive(Clone, Debug)]
pub struct LineTexts {
    /// The lines that the weights are fitted to.
    pub training: Vec<Line>,
    /// The lines that decide when to stop.
    pub validation: Vec<Line>,
    /// The number of tokens V of the vocabulary.
    pub vocab_size: usize,
}

/// How a run learns from lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineOptions {
    /// The token that ends every line, and that ends what the model generates.
    pub end: u32,
    /// What stands before the tokens that are learned, in words; only compared when a run is resumed.
    pub loss_after: Option<String>,
    /// What the loss of a token counts that stands before them, from 0 to 1; the others count 1.
    pub context_weight: f64,
}

/// How many batches are drawn before their lines are sorted: the more, the more equal the lines of a batch, and the fewer,
/// the more an epoch's batches are a matter of chance.
const POOL: usize = 50;

/// The lines, arranged as the options say.
pub(crate) struct LineArrangement {
    training: Arc<Vec<Line>>,
    validation: LineEpoch,
    batch: usize,
    seed: u64,
    start: u32,
    end: u32,
}

/// The batches of one pass through lines.
pub(crate) struct LineEpoch {
    lines: Arc<Vec<Line>>,
    /// Which lines stand in each batch.
    batches: Vec<Vec<usize>>,
    start: u32,
    end: u32,
}

/// The hash of lines, which tells where each ends and what is only read of it.
pub(crate) fn hash_lines(lines: &[Line]) -> String {
    let numbers = lines.iter().flat_map(|Line { tokens, context }| {
        [tokens.len() as u32, *context as u32].into_iter().chain(tokens.iter().copied())
    });
    hash(&numbers.collect::<Vec<_>>())
}

impl LineArrangement {
    pub(crate) fn new(texts: LineTexts, options: &TrainingOptions) -> Result<Self, TrainError> {
        let Some(LineOptions { end, .. }) = options.lines else { return Err(TrainError::OtherReading) };
        let Start::Token(start) = options.start else { return Err(TrainError::LinesWithoutStart) };
        if options.order != DataOrder::Text {
            return Err(TrainError::LinesByPassages);
        }
        for (text, lines) in [("training", &texts.training), ("validation", &texts.validation)] {
            if lines.is_empty() {
                return Err(TrainError::NoLines { text });
            }
            for line in lines {
                check(text, &line.tokens, texts.vocab_size)?;
                if line.context > line.tokens.len() {
                    return Err(TrainError::Context {
                        text,
                        context: line.context,
                        tokens: line.tokens.len(),
                    });
                }
            }
        }
        let TrainingOptions { batch, seed, .. } = *options;
        let mut sorted: Vec<usize> = (0..texts.validation.len()).collect();
        sorted.sort_by_key(|&line| Reverse(texts.validation[line].tokens.len()));
        let batches = sorted.chunks(batch).map(<[usize]>::to_vec).collect();
        let validation = LineEpoch { lines: Arc::new(texts.validation), batches, start, end };
        Ok(Self { training: Arc::new(texts.training), validation, batch, seed, start, end })
    }

    /// The epoch with this number, from 0. Every epoch has as many batches, and reads every line once.
    pub(crate) fn epoch(&self, epoch: usize) -> LineEpoch {
        let lengths = |line: usize| self.training[line].tokens.len();
        let batches = batches(self.training.len(), lengths, self.batch, (self.seed, epoch));
        LineEpoch { lines: Arc::clone(&self.training), batches, start: self.start, end: self.end }
    }

    pub(crate) fn validation(&self) -> &LineEpoch {
        &self.validation
    }
}

impl LineEpoch {
    /// The number of batches.
    pub(crate) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The number of tokens, every line's end included.
    pub(crate) fn tokens(&self) -> usize {
        self.lines.iter().map(|line| line.tokens.len() + 1).sum()
    }

    pub(crate) fn batch(&self, index: usize) -> LineBatch {
        let lines: Vec<&Line> = self.batches[index].iter().map(|&line| &self.lines[line]).collect();
        LineBatch::new(&lines, self.start, self.end)
    }
}

/// Which of `count` lines stand in each batch of an epoch, in an order that follows from the seed and the epoch. Lines of
/// a batch are about as long as each other, since those that are drawn together are sorted before they are cut up.
fn batches(
    count: usize,
    length: impl Fn(usize) -> usize,
    batch: usize,
    (seed, epoch): (u64, usize),
) -> Vec<Vec<usize>> {
    let mut generator = generator(seed, Purpose::Order, epoch as u64);
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, &mut generator);
    let mut batches = Vec::new();
    for pool in order.chunks_mut(batch * POOL) {
        pool.sort_by_key(|&line| Reverse(length(line)));
        batches.extend(pool.chunks(batch).map(<[usize]>::to_vec));
    }
    shuffle(&mut batches, &mut generator);
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_epoch_reads_every_line_once_in_as_many_batches(
            lengths in prop::collection::vec(0_usize..30, 1..400),
            batch in 1_usize..7, seed in any::<u64>(), epoch in 0_usize..3,
        ) {
            let length = |line: usize| lengths[line];
            let batches = batches(lengths.len(), length, batch, (seed, epoch));
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch));
            prop_assert!(batches.iter().all(|lines| (1..=batch).contains(&lines.len())));
            let mut seen: Vec<usize> = batches.into_iter().flatten().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_of_a_batch_are_about_as_long_and_epochs_differ() {
        let length = |line: usize| line % 100;
        let of = |seed, epoch| batches(4000, length, 16, (seed, epoch));
        let spread = |lines: &Vec<usize>| {
            let lengths = lines.iter().map(|&line| length(line));
            lengths.clone().max().unwrap() - lengths.min().unwrap()
        };
        // Sixteen lines that are drawn at random span 88 of 100 lengths.
        let mean = of(1, 0).iter().map(spread).sum::<usize>() as f64 / 250.0;
        assert!(mean < 8.0, "{mean}");
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 0), of(2, 0));
    }

    #[test]
    fn a_hash_tells_where_lines_end_and_what_is_read_only() {
        let line = |tokens: &[u32], context| Line { tokens: tokens.to_vec(), context };
        let one = hash_lines(&[line(&[1, 2, 3], 0)]);
        assert_eq!(one, hash_lines(&[line(&[1, 2, 3], 0)]));
        assert_ne!(one, hash_lines(&[line(&[1, 2, 3], 1)]));
        assert_ne!(one, hash_lines(&[line(&[1, 2], 0), line(&[3], 0)]));
    }
}
