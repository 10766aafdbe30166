//! The launches that feed a block of tokens: which kernel, over which grid, in which order. Knows nothing about what is wanted
//! of the hidden vectors.

use candle_core::{Result, bail};
use chorus_kernels::{
    Address, BeginArguments, CellArguments, EmbedArguments, Grid, InputKind, Kernel, LoadArguments,
    RowsArguments, THREADS, Tile, WARP, WeightKind,
};

use super::call::Place;
use super::launcher::Product;
use super::launches::Launches;
use super::scan::ScanShape;
use super::weights::{Input, Layer, Matrix};
use crate::packing::Packing;

/// Blocks that fetch a call's words.
const BEGIN_BLOCKS: usize = 32;
/// Words that a thread fetches at a time.
const BEGIN_WORDS: usize = 4;

/// Where a block's numbers stand in the words of its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPlaces {
    /// In packed order.
    pub(super) tokens: Place,
    /// Where each step's rows begin, and their number at the end.
    pub(super) offsets: Place,
    /// The slot of each sequence before the block.
    pub(super) from: Place,
    /// The slot of each sequence after it.
    pub(super) to: Place,
}

impl Launches<'_> {
    /// The words of a call, from the host's memory.
    pub(super) fn begin(&self, source: Address, words: usize) -> Result<()> {
        let arguments = BeginArguments {
            source,
            target: self.regions.words.at(self.memory),
            counters: self.regions.counters.at(self.memory),
            words: words as u32,
            counter_count: self.weights.layers.len() as u32,
        };
        let blocks = words.div_ceil(BEGIN_WORDS * THREADS as usize).clamp(1, BEGIN_BLOCKS);
        // SAFETY: both are planned for the largest call, and the host's words stay as they are until it is over.
        unsafe { self.launcher.launch(Kernel::Begin, Grid::new((blocks as u32, 1), THREADS), &arguments) }
    }

    /// Feeds a block of tokens that is not empty.
    pub(super) fn block(&self, packing: &Packing, places: BlockPlaces) -> Result<()> {
        if is_few(self.weights.kind, packing) {
            return (0..self.weights.layers.len())
                .try_for_each(|layer| self.few_rows(layer, packing.batch(), places));
        }
        self.load(packing.batch(), places)?;
        let shape = ScanShape::of(self.weights.sizes, self.weights.kind, self.properties, packing);
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let projected = self.project_input(index, layer, packing, places)?;
            match shape {
                Some(shape) => self.scan(index, layer, projected, (packing, shape), places)?,
                None => (0..packing.steps())
                    .try_for_each(|step| self.step(index, layer, projected, (packing, step), places))?,
            }
        }
        Ok(())
    }

    /// The top layer's hidden vectors of a block that took more than [`Launches::few_rows`].
    pub(super) fn top_hidden(&self) -> Address {
        self.hidden(self.weights.layers.len() - 1)
    }

    /// A warp of a kernel for each of so many units. In blocks that are small enough to give every multiprocessor some, and as
    /// much as the others.
    pub(super) fn warps(&self, kernel: Kernel, units: usize) -> Grid {
        let enough = 2 * self.properties.multiprocessors as usize;
        let most = (kernel.threads() / WARP) as usize;
        let is_fine = |warps: &usize| *warps <= most && units.div_ceil(*warps) >= enough;
        let warps = [8, 4, 2].into_iter().find(is_fine).unwrap_or(1);
        Grid::new((units.div_ceil(warps) as u32, 1), WARP * warps as u32)
    }

    /// Numbers of each row of a matrix that may be asked for before the launch before is done: all matrices of a step together have
    /// half of the cache. More would drive out what is needed first.
    pub(super) fn ahead(&self, matrix: &Matrix) -> u32 {
        let matrices = 2 * self.weights.layers.len();
        let share = self.properties.cache_bytes as usize / 2 / matrices / self.weights.kind.bytes();
        (share / matrix.outputs).min(matrix.depth) as u32
    }

    pub(super) fn hidden(&self, layer: usize) -> Address {
        self.regions.hidden[layer % 2].at(self.memory)
    }

    pub(super) fn of_call(&self, place: Place) -> Address {
        place.at(self.regions.words, self.memory)
    }

    fn few_rows(&self, index: usize, rows: usize, places: BlockPlaces) -> Result<()> {
        let (sizes, layer) = (self.weights.sizes, &self.weights.layers[index]);
        let (input_kind, input) = match index {
            0 => (self.weights.input.kind(), self.weights.input.address()),
            _ => (InputKind::Below, Address::NONE),
        };
        let tile = Tile::of(rows);
        let arguments = RowsArguments {
            input_weights: layer.input.as_ref().map_or(Address::NONE, |matrix| matrix.numbers.address()),
            weights: layer.recurrent.numbers.address(),
            bias: layer.bias.as_ref().map_or(Address::NONE, |bias| bias.address()),
            input,
            slots: self.regions.slots.at(self.memory),
            tokens: self.of_call(places.tokens),
            from: self.of_call(places.from),
            to: self.of_call(places.to),
            input_kind,
            input_depth: layer.input.as_ref().map_or(0, |matrix| matrix.depth as u32),
            hidden: sizes.hidden as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
            layer: index as u32,
            rows: rows as u32,
            input_ahead: layer.input.as_ref().map_or(0, |matrix| self.ahead(matrix)),
            ahead: self.ahead(&layer.recurrent),
        };
        let kernel = Kernel::Rows(self.weights.kind, tile);
        let grid = self.warps(kernel, sizes.hidden);
        // SAFETY: weights and memory are the engine's own; the slots of the call are of its table, and those that are
        // written are read by nobody.
        unsafe { self.launcher.launch(kernel, grid, &arguments) }
    }

    fn load(&self, rows: usize, places: BlockPlaces) -> Result<()> {
        let sizes = self.weights.sizes;
        let arguments = LoadArguments {
            slots: self.regions.slots.at(self.memory),
            from: self.of_call(places.from),
            before: self.regions.before.at(self.memory),
            layers: sizes.layers as u32,
            rows: rows as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
        };
        let grid = Grid::new((rows as u32, sizes.layers as u32), THREADS);
        // SAFETY: as above; the workspace is planned for so many rows.
        unsafe { self.launcher.launch(Kernel::Load(self.weights.kind), grid, &arguments) }
    }

    /// The input's products of a whole block at once; false where a table has them.
    fn project_input(
        &self,
        index: usize,
        layer: &Layer,
        packing: &Packing,
        places: BlockPlaces,
    ) -> Result<bool> {
        let rows = packing.rows();
        let input = match (index, &self.weights.input) {
            (0, Input::Table(_)) => return Ok(false),
            (0, Input::Embedding(embedding)) => {
                let target = self.regions.embedded.at(self.memory);
                let depth = self.weights.sizes.input as u32;
                let arguments = EmbedArguments {
                    embedding: embedding.address(),
                    tokens: self.of_call(places.tokens),
                    target,
                    rows: rows as u32,
                    depth,
                };
                let kernel = Kernel::Embed(self.weights.kind);
                // SAFETY: as above; every token is in the vocabulary.
                unsafe { self.launcher.launch(kernel, Grid::new((rows as u32, 1), THREADS), &arguments) }?;
                target
            }
            _ => self.hidden(index - 1),
        };
        let Some(weights) = &layer.input else { bail!("layer {index} has no input side") };
        let product = Product {
            kind: self.weights.kind,
            weights: weights.numbers.address(),
            outputs: weights.outputs,
            depth: weights.depth,
            input,
            rows,
            sums: self.regions.gates.at(self.memory),
            adds: false,
        };
        // SAFETY: as above.
        unsafe { self.launcher.multiply(&product) }?;
        Ok(true)
    }

    pub(super) fn table(&self, is_projected: bool) -> Address {
        if is_projected { Address::NONE } else { self.weights.input.address() }
    }

    /// h of a layer before a step, of as many rows as the step before had.
    pub(super) fn hidden_before(&self, index: usize, packing: &Packing, step: usize) -> Address {
        let row = self.weights.sizes.padded * self.weights.kind.bytes();
        match step.checked_sub(1) {
            Some(previous) => self.hidden(index).plus(packing.span(previous).start * row),
            None => self.regions.before.at(self.memory).plus(index * packing.batch() * row),
        }
    }

    /// One step of a layer: the recurrent products, then the cells.
    fn step(
        &self,
        index: usize,
        layer: &Layer,
        is_projected: bool,
        (packing, step): (&Packing, usize),
        places: BlockPlaces,
    ) -> Result<()> {
        let sizes = self.weights.sizes;
        let (span, recurrent) = (packing.span(step), &layer.recurrent);
        let before = if is_projected { span.start * recurrent.outputs * size_of::<f32>() } else { 0 };
        let gates = self.regions.gates.at(self.memory).plus(before);
        let product = Product {
            kind: self.weights.kind,
            weights: recurrent.numbers.address(),
            outputs: recurrent.outputs,
            depth: recurrent.depth,
            input: self.hidden_before(index, packing, step),
            rows: span.len(),
            sums: gates,
            adds: is_projected,
        };
        // SAFETY: as above.
        unsafe { self.launcher.multiply(&product) }?;
        let arguments = CellArguments {
            gates,
            table: self.table(is_projected),
            bias: layer.bias.as_ref().map_or(Address::NONE, |bias| bias.address()),
            carry: self.regions.carry.at(self.memory),
            slots: self.regions.slots.at(self.memory),
            tokens: self.of_call(places.tokens.behind(span.start)),
            from: self.of_call(places.from),
            to: self.of_call(places.to),
            after: self.hidden(index).plus(span.start * sizes.padded * self.weights.kind.bytes()),
            hidden: sizes.hidden as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
            layer: index as u32,
            size: span.len() as u32,
            next_size: packing.batch_sizes().get(step + 1).map_or(0, |&size| size as u32),
            is_first: (step == 0).into(),
        };
        let grid = Grid::new((span.len() as u32, (sizes.hidden as u32).div_ceil(THREADS)), THREADS);
        // SAFETY: as above.
        unsafe { self.launcher.launch(Kernel::Cell(self.weights.kind), grid, &arguments) }
    }
}

/// Rows of a step up to which each layer is one launch: the weights' way from memory is all that counts then. Behind it come
/// products of cuBLAS, which has tensor cores for the smaller numbers.
pub(super) fn few_rows(kind: WeightKind) -> usize {
    match kind {
        WeightKind::F32 => Tile::LARGEST,
        WeightKind::Bf16 | WeightKind::F16 => 4,
    }
}

/// Whether each layer of a block is one launch, which leaves its hidden vectors in the slots and nowhere else.
pub(super) fn is_few(kind: WeightKind, packing: &Packing) -> bool {
    packing.steps() == 1 && packing.batch() <= few_rows(kind)
}
