//! What a forward writes and the next one writes again: it grows to the largest block and is then reused.
//!
//! Knows where each row of a block stands in the buffers, and nothing about arithmetic.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::Result;

use super::matrix::Scratch;
use super::operation::Buffer;
use crate::block::Block;
use crate::packing::Packing;

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
