//! One of the two sides of the host's memory: what a part of a call tells the device, and where its answers arrive. While one
//! part is computed, those of the other side can be taken in. Knows nothing about launches or states.

use std::ops::Range;

use candle_core::Result;
use chorus_kernels::Answer;
use chorus_simd::{Norm, Reduced, Reduction};

use super::answers::{Asks, Room, found};
use super::call::most_words;
use super::launcher::{HostMemory, Launcher};
use super::output::AnswerPlaces;

/// Bytes of whole rows that a side has room for, about; at least one row. In tests of this crate eight rows are too many.
const ROW_BYTES: usize = if cfg!(test) { 128 } else { 32 << 20 };

/// A side, with the part that is on its way in it.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) words: HostMemory,
    pub(super) asks: Asks,
    /// Whole rows `[outputs]` that are copied from the device.
    pub(super) rows: HostMemory,
    /// [`Answer`]s, then lists.
    answers: HostMemory,
    /// For each ask the row of the call and the distribution.
    places: Vec<(usize, usize)>,
    room: Room,
}

/// A wanted distribution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) row: usize,
    /// Which of the row's.
    pub(super) offset: usize,
    pub(super) reduction: Reduction<'a>,
    pub(super) target: Option<u32>,
}

/// What was found of a wanted distribution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) row: usize,
    pub(crate) offset: usize,
    pub(crate) norm: Norm,
    pub(crate) target: Option<f32>,
    pub(crate) reduced: Reduced<'a>,
}

/// Who takes in what is found.
pub(super) type Receive<'a> = &'a mut dyn FnMut(Found<'_>);

impl Side {
    /// For calls of so many tokens and rows of `outputs` logits.
    pub(super) fn new(
        launcher: &Launcher,
        room: Room,
        (tokens, rows, outputs): (usize, usize, usize),
    ) -> Result<Self> {
        let words = most_words(tokens, rows, room.ids) * size_of::<u32>();
        let answers = rows * size_of::<Answer>() + room.list_words * size_of::<u32>();
        let row_bytes = outputs * size_of::<f32>();
        Ok(Self {
            words: launcher.host_memory(words)?,
            asks: Asks::default(),
            rows: launcher.host_memory(row_bytes.max(ROW_BYTES.min(rows * row_bytes)))?,
            answers: launcher.host_memory(answers)?,
            places: Vec::with_capacity(rows),
            room,
        })
    }

    /// Forgets the part before.
    pub(super) fn clear(&mut self) {
        self.asks.clear();
        self.places.clear();
    }

    /// Takes an ask in, unless the part would leave its room by it. The first one always gets in.
    pub(super) fn ask(&mut self, asked: Asked<'_>, vocabulary: usize) -> bool {
        let fits = self.asks.push(asked.reduction, asked.target, vocabulary, self.room);
        if fits {
            self.places.push((asked.row, asked.offset));
        }
        fits
    }

    /// Where kernels write the answers.
    pub(super) fn answer_places(&self) -> AnswerPlaces {
        let answers = self.answers.address();
        AnswerPlaces { answers, lists: answers.plus(self.room.asks * size_of::<Answer>()) }
    }

    /// Hands over what was found for some of the asks, of which none wants a whole row; it is there.
    pub(super) fn hand_over(&self, asks: Range<usize>, receive: Receive<'_>) {
        asks.for_each(|index| self.hand_over_row(index, &[], receive));
    }

    /// The same for one ask, which may want this row as a whole.
    pub(super) fn hand_over_row(&self, index: usize, row: &[f32], receive: Receive<'_>) {
        let (answers, lists) = self.answers.numbers::<u32>().split_at(self.room.asks * Answer::WORDS);
        let (Some(words), Some(ask), Some(&place)) = (
            answers.as_chunks::<{ Answer::WORDS }>().0.get(index),
            self.asks.asks.get(index),
            self.places.get(index),
        ) else {
            return;
        };
        let (norm, target, reduced) = found(ask, &Answer::from_words(words), lists, row);
        let (row, offset) = place;
        receive(Found { row, offset, norm, target, reduced });
    }
}
