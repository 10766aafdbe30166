//! The launches that find out what is wanted of hidden vectors: the output layer over those rows, and their answers. Knows
//! nothing about how the hidden vectors came to be.

use candle_core::Result;
use chorus_kernels::{
    ANSWER_ROOM_BYTES, ANSWER_THREADS, Address, AnswersArguments, Grid, IS_SLOT, Kernel, ProjectArguments,
    SelectArguments, THREADS, Tile,
};

use super::call::Place;
use super::launcher::Product;
use super::launches::Launches;
use super::recording::Selection;
use super::recurrence::few_rows;

/// A part of the wanted distributions, in the words of its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputPlaces {
    /// Where each hidden vector stands.
    pub(super) sources: Place,
    pub(super) asks: Place,
    pub(super) ids: Place,
    /// How many distributions; at least one.
    pub(super) rows: usize,
    pub(super) selection: Selection,
    /// Whether somebody wants of a row what can't be found by reading it once.
    pub(super) are_read_again: bool,
}

/// Where answers go, in memory of the host that the device writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerPlaces {
    pub(super) answers: Address,
    pub(super) lists: Address,
}

impl Launches<'_> {
    /// Logits of the rows, and what is asked of them.
    pub(super) fn output(&self, places: OutputPlaces, answers: AnswerPlaces) -> Result<()> {
        let few = places.rows <= few_rows(self.weights.kind);
        let selected = match places.selection {
            Selection::Slots if few => Address::NONE,
            Selection::Block => self.top_hidden(),
            Selection::Slots | Selection::Mixed => self.select(places)?,
        };
        if few {
            self.project_few(places, selected)?;
        } else {
            self.project_many(places, selected)?;
        }
        self.answers(places, answers)
    }

    fn sources(&self, places: OutputPlaces) -> Address {
        places.sources.at(self.regions.words, self.memory)
    }

    fn select(&self, places: OutputPlaces) -> Result<Address> {
        let sizes = self.weights.sizes;
        let target = self.regions.selected.at(self.memory);
        let arguments = SelectArguments {
            hidden: self.top_hidden(),
            slots: self.regions.slots.at(self.memory),
            sources: self.sources(places),
            target,
            rows: places.rows as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
            layer: sizes.layers as u32 - 1,
        };
        let grid = Grid::new((places.rows as u32, 1), THREADS);
        // SAFETY: the sources are slots of the table and rows of the block; the workspace is planned for so many.
        unsafe { self.launcher.launch(Kernel::Select(self.weights.kind), grid, &arguments) }?;
        Ok(target)
    }

    fn project_few(&self, places: OutputPlaces, selected: Address) -> Result<()> {
        let sizes = self.weights.sizes;
        let tile = Tile::of(places.rows);
        let arguments = ProjectArguments {
            weights: self.weights.output.numbers.address(),
            selected,
            slots: self.regions.slots.at(self.memory),
            sources: self.sources(places),
            logits: self.logits(),
            outputs: sizes.outputs as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
            layer: sizes.layers as u32 - 1,
            rows: places.rows as u32,
            ahead: self.ahead(&self.weights.output),
        };
        let kernel = Kernel::Project(self.weights.kind, tile);
        let grid = self.warps(kernel, sizes.outputs / 4);
        // SAFETY: as above.
        unsafe { self.launcher.launch(kernel, grid, &arguments) }
    }

    fn project_many(&self, places: OutputPlaces, selected: Address) -> Result<()> {
        let output = &self.weights.output;
        let product = Product {
            kind: self.weights.kind,
            weights: output.numbers.address(),
            outputs: output.outputs,
            depth: output.depth,
            input: selected,
            rows: places.rows,
            sums: self.logits(),
            adds: false,
        };
        // SAFETY: as above.
        unsafe { self.launcher.multiply(&product) }
    }

    fn answers(&self, places: OutputPlaces, answers: AnswerPlaces) -> Result<()> {
        let sizes = self.weights.sizes;
        let staged = ANSWER_ROOM_BYTES as usize + sizes.outputs * size_of::<f32>();
        let is_staged = places.are_read_again && staged <= self.properties.shared_bytes as usize;
        let arguments = AnswersArguments {
            logits: self.logits(),
            bias: self.weights.output_bias.address(),
            asks: places.asks.at(self.regions.words, self.memory),
            ids: places.ids.at(self.regions.words, self.memory),
            answers: answers.answers,
            lists: answers.lists,
            vocabulary: sizes.vocabulary as u32,
            outputs: sizes.outputs as u32,
            rows: places.rows as u32,
            is_staged: is_staged.into(),
        };
        let shared = if is_staged { staged as u32 } else { ANSWER_ROOM_BYTES };
        let grid = Grid::new((places.rows as u32, 1), ANSWER_THREADS).with_shared(shared);
        // SAFETY: as above; every list has its room, and every id and target is in the vocabulary.
        unsafe { self.launcher.launch(Kernel::Answers, grid, &arguments) }
    }

    fn logits(&self) -> Address {
        self.regions.logits[self.side].at(self.memory)
    }
}

/// The source that is a slot.
pub(super) fn slot_source(slot: u32) -> u32 {
    slot | IS_SLOT
}
