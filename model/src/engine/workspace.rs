//! What a forward writes and the next one writes again: it grows to the largest block and is then reused.
//!
//! Knows where each row of a block stands in the buffers, and nothing about arithmetic.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::Result;

use super::matrix::Scratch;
use super::operation::Buffer;
use crate::packing::Packing;
use crate::row::{Row, Want};

/// Buffers of a forward.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) block: Block,
    /// Of each layer: h and c before the first step and after each.
    pub(super) states: Vec<Buffer>,
    /// The rows that a layer reads: embeddings, or the hidden vectors below.
    pub(super) below: Buffer,
    /// Their projections.
    pub(super) gates: Buffer,
    /// The hidden vectors whose logits are wanted.
    pub(super) selected: Buffer,
    pub(super) logits: Buffer,
    /// Rows in 8 bits where they are multiplied so, of the layer below and of a layer's own hidden vectors.
    pub(super) scratch: [RefCell<Scratch>; 2],
    /// One token's embedding.
    pub(super) embedding: RefCell<Vec<f32>>,
    /// One row of logits in the order of the vocabulary.
    pub(super) row: Vec<f32>,
}

/// The rows of a call as a packed block.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) packing: Packing,
    /// For each sequence of the packed batch the row of the call that it is.
    pub(super) order: Vec<usize>,
    /// The tokens in packed order.
    pub(super) tokens: Vec<u32>,
    /// Every distribution that is wanted, row by row.
    pub(super) wanted: Vec<Wanted>,
    lengths: Vec<usize>,
    /// For each row of the call its sequence in the packed batch.
    places: Vec<Option<usize>>,
}

/// A wanted distribution and the hidden vector that it is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) row: usize,
    /// Which of the row's distributions.
    pub(super) offset: usize,
    pub(super) source: Source,
}

/// A hidden vector of the top layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In the state that the row came with.
    Before,
    /// After a step of a sequence of the packed batch.
    After {
        /// Which step.
        step: usize,
        /// Which sequence.
        place: usize,
    },
}

/// Where h and c of a layer stand: a region before the first step and one after each step,
/// each `[panels][rows][h, c][lanes]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateLayout<'a> {
    pub(super) packing: &'a Packing,
    pub(super) panels: usize,
    pub(super) lanes: usize,
}

impl Workspace {
    pub(super) fn new(layers: usize, vocab_size: usize) -> Result<Self> {
        Ok(Self {
            block: Block::default(),
            states: (0..layers).map(|_| Buffer::empty()).collect::<Result<_>>()?,
            below: Buffer::empty()?,
            gates: Buffer::empty()?,
            selected: Buffer::empty()?,
            logits: Buffer::empty()?,
            scratch: Default::default(),
            embedding: RefCell::default(),
            row: vec![0.0; vocab_size],
        })
    }
}

impl Block {
    /// Takes in the rows of a call.
    pub(super) fn fill(&mut self, rows: &[Row<'_>]) {
        self.lengths.clear();
        self.lengths.extend(rows.iter().map(|row| row.tokens.len()));
        self.packing.refill(&self.lengths, &mut self.order);
        self.places.clear();
        self.places.resize(rows.len(), None);
        for (place, &row) in self.order.iter().enumerate() {
            self.places[row] = Some(place);
        }
        self.tokens.clear();
        for (step, &size) in self.packing.batch_sizes().iter().enumerate() {
            self.tokens.extend(self.order[..size].iter().map(|&row| rows[row].tokens[step]));
        }
        self.wanted.clear();
        for (index, (row, place)) in rows.iter().zip(&self.places).enumerate() {
            let after = |step| place.map_or(Source::Before, |place| Source::After { step, place });
            let before = std::iter::once(Source::Before);
            let tokens = row.tokens.len();
            let mut want = |sources: &mut dyn Iterator<Item = Source>| {
                let wanted =
                    sources.enumerate().map(|(offset, source)| Wanted { row: index, offset, source });
                self.wanted.extend(wanted);
            };
            match row.want {
                Want::Nothing => {}
                Want::Next if tokens == 0 => want(&mut before.take(1)),
                Want::Next => want(&mut std::iter::once(after(tokens - 1))),
                // The distribution before each token.
                Want::Each => want(&mut before.chain((1..tokens).map(|token| after(token - 1))).take(tokens)),
            }
        }
    }
}

impl<'a> StateLayout<'a> {
    /// Numbers of all regions.
    pub(super) fn size(&self) -> usize {
        (self.packing.batch() + self.packing.rows()) * self.row()
    }

    /// The region before the first step.
    pub(super) fn initial(&self) -> Range<usize> {
        0..self.packing.batch() * self.row()
    }

    /// The region after a step.
    pub(super) fn after(&self, step: usize) -> Range<usize> {
        let span = self.packing.span(step);
        let batch = self.packing.batch();
        (batch + span.start) * self.row()..(batch + span.end) * self.row()
    }

    /// The region before a step, and how many rows it has.
    pub(super) fn before(&self, step: usize) -> (Range<usize>, usize) {
        match step.checked_sub(1) {
            Some(previous) => (self.after(previous), self.packing.batch_sizes()[previous]),
            None => (self.initial(), self.packing.batch()),
        }
    }

    /// A row's h and c within a region of `rows` rows, panel by panel: `[h, c][lanes]` each.
    pub(super) fn places(&self, rows: usize, row: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = 2 * self.lanes;
        (0..self.panels).map(move |panel| (panel * rows + row) * width..(panel * rows + row + 1) * width)
    }

    /// Numbers of one row.
    fn row(&self) -> usize {
        self.panels * 2 * self.lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::State;

    #[test]
    fn every_wanted_distribution_finds_its_hidden_vector() {
        let mut states = vec![State { values: Box::default() }; 5];
        let wants = [Want::Each, Want::Next, Want::Nothing, Want::Next, Want::Each];
        let tokens: [&[u32]; 5] = [&[7, 8], &[], &[9], &[4, 5, 6], &[]];
        let rows: Vec<Row<'_>> = states
            .iter_mut()
            .zip(tokens)
            .zip(wants)
            .map(|((state, tokens), want)| Row { state, tokens, want })
            .collect();
        let mut block = Block::default();
        for _ in 0..2 {
            block.fill(&rows);
            assert_eq!(block.order, [3, 0, 2]);
            assert_eq!(block.tokens, [4, 7, 9, 5, 8, 6]);
            let wanted = |row, offset, source| Wanted { row, offset, source };
            let expected = [
                wanted(0, 0, Source::Before),
                wanted(0, 1, Source::After { step: 0, place: 1 }),
                wanted(1, 0, Source::Before),
                wanted(3, 0, Source::After { step: 2, place: 0 }),
            ];
            assert_eq!(block.wanted, expected);
        }
    }
}
