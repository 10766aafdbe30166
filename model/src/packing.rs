//! Time-major packing of sequences of different lengths, exactly as PyTorch's `PackedSequence`.
//!
//! The rows of step 0 of all sequences come first, then those of step 1, and so on; sequences are ordered from the
//! longest to the shortest, so the sequences that reach a step are always the first ones. Knows nothing about tensors.

use std::ops::Range;

use thiserror::Error;

/// How the N rows of a packed block are laid out: how many sequences reach each step.
///
/// ```
/// use chorus_model::Packing;
/// // Lengths 1, 3, 2: the longest (sequence 1) comes first.
/// let (packing, order) = Packing::from_lengths(&[1, 3, 2]);
/// assert_eq!(packing.batch_sizes(), [3, 2, 1]);
/// assert_eq!(order, [1, 2, 0]);
/// assert_eq!(packing.row(2, 0), 5); // the last row of the longest
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packing {
    batch_sizes: Vec<usize>,
    /// Where each step's rows begin, and N at the end.
    offsets: Vec<usize>,
}

/// Why batch sizes are no packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PackingError {
    /// A step that no sequence reaches does not exist.
    #[error("batch size of step {step} is 0")]
    EmptyStep {
        /// Which step.
        step: usize,
    },
    /// A sequence can't come back after its end.
    #[error("batch sizes must not grow, but that of step {step} is larger than the one before")]
    Growing {
        /// Which step.
        step: usize,
    },
}

impl Packing {
    /// From the number of sequences that reach each step: positive and never growing.
    pub fn new(batch_sizes: Vec<usize>) -> Result<Self, PackingError> {
        for (step, &size) in batch_sizes.iter().enumerate() {
            if size == 0 {
                return Err(PackingError::EmptyStep { step });
            }
            if step > 0 && size > batch_sizes[step - 1] {
                return Err(PackingError::Growing { step });
            }
        }
        Ok(Self::from_checked(batch_sizes))
    }

    /// `batch` sequences of `time` steps each.
    pub fn rectangle(time: usize, batch: usize) -> Self {
        Self::from_checked(if batch == 0 { Vec::new() } else { vec![batch; time] })
    }

    /// Sequences of the given lengths, in any order. The second result says which of them stands at each place of
    /// the packed batch: the longest first, ties in their own order, empty ones left out.
    pub fn from_lengths(lengths: &[usize]) -> (Self, Vec<usize>) {
        let (mut packing, mut order) = (Self::default(), Vec::new());
        packing.refill(lengths, &mut order);
        (packing, order)
    }

    /// The same into memory that is there already.
    pub(crate) fn refill(&mut self, lengths: &[usize], order: &mut Vec<usize>) {
        order.clear();
        order.extend((0..lengths.len()).filter(|&index| lengths[index] > 0));
        // Unstable, for a stable sort allocates; ties are told apart by their own order.
        order.sort_unstable_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
        let time = order.first().map_or(0, |&index| lengths[index]);
        self.batch_sizes.clear();
        self.batch_sizes.resize(time, 0);
        for &index in &*order {
            self.batch_sizes[..lengths[index]].iter_mut().for_each(|size| *size += 1);
        }
        self.sum_offsets();
    }

    fn from_checked(batch_sizes: Vec<usize>) -> Self {
        let mut packing = Self { batch_sizes, offsets: Vec::new() };
        packing.sum_offsets();
        packing
    }

    fn sum_offsets(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        let mut rows = 0;
        for size in &self.batch_sizes {
            rows += size;
            self.offsets.push(rows);
        }
    }

    /// How many sequences reach each step.
    pub fn batch_sizes(&self) -> &[usize] {
        &self.batch_sizes
    }

    /// The number of packed rows N.
    pub fn rows(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The number of steps T.
    pub fn steps(&self) -> usize {
        self.batch_sizes.len()
    }

    /// The number of sequences B.
    pub fn batch(&self) -> usize {
        self.batch_sizes.first().copied().unwrap_or(0)
    }

    /// Whether all sequences have the same length.
    pub fn is_rectangle(&self) -> bool {
        self.batch_sizes.first() == self.batch_sizes.last()
    }

    /// The rows of one step.
    pub fn span(&self, step: usize) -> Range<usize> {
        self.offsets[step]..self.offsets[step + 1]
    }

    /// The row of the `index`-th sequence (in packed order) at a step that it reaches.
    pub fn row(&self, step: usize, index: usize) -> usize {
        debug_assert!(index < self.batch_sizes[step], "the sequence does not reach the step");
        self.offsets[step] + index
    }

    /// The length of the `index`-th sequence (in packed order).
    pub fn length(&self, index: usize) -> usize {
        self.batch_sizes.partition_point(|&size| size > index)
    }

    /// The last row of each sequence, in packed order.
    pub fn last_rows(&self) -> Vec<usize> {
        (0..self.batch()).map(|index| self.row(self.length(index) - 1, index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sequence_finds_its_rows(lengths in prop::collection::vec(0usize..9, 0..8)) {
            let (packing, order) = Packing::from_lengths(&lengths);
            prop_assert_eq!(packing.rows(), lengths.iter().sum::<usize>());
            prop_assert_eq!(packing.batch(), order.len());
            prop_assert_eq!(&packing, &Packing::new(packing.batch_sizes().to_vec()).unwrap());
            let mut seen = vec![false; packing.rows()];
            for (place, &sequence) in order.iter().enumerate() {
                prop_assert_eq!(packing.length(place), lengths[sequence]);
                for step in 0..lengths[sequence] {
                    let row = packing.row(step, place);
                    prop_assert!(packing.span(step).contains(&row));
                    prop_assert!(!std::mem::replace(&mut seen[row], true));
                }
                prop_assert_eq!(packing.last_rows()[place], packing.row(lengths[sequence] - 1, place));
            }
            let same = order.iter().all(|&sequence| lengths[sequence] == packing.steps());
            prop_assert_eq!(packing.is_rectangle(), same);
        }
    }

    #[test]
    fn batch_sizes_that_are_no_packing_are_refused() {
        assert_eq!(Packing::new(vec![2, 0]), Err(PackingError::EmptyStep { step: 1 }));
        assert_eq!(Packing::new(vec![2, 1, 2]), Err(PackingError::Growing { step: 2 }));
        assert_eq!(Packing::rectangle(3, 2).batch_sizes(), [2, 2, 2]);
        assert_eq!(Packing::rectangle(3, 0).rows(), 0);
    }
}
