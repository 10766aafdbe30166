//! A call: states in, layer by layer over the block, logits of the wanted rows, states out.

use candle_core::Result;
use chorus_simd::{instructions, norm};
use pulp::Arch;

use super::cells::{GateInput, Step};
use super::early_products::{EarlyProducts, Known, ROOM};
use super::matrix::{Numbers, Scratch};
use super::product::Activations;
use super::projection::project;
use super::weights::{Recurrent, TokenInput, Weights};
use super::workspace::{StateLayout, Workspace};
use crate::block::{Source, Wanted};
use crate::network::Network;
use crate::precision::Precision;
use crate::quantization::QuantizedMatrices;
use crate::row::{Prediction, Row, Want};

/// Logits that are computed together, about: few enough for the second cache to hold what their reduction reads.
const LOGITS: usize = 1 << 21;
/// But at least so many rows where so many are wanted: they share one pass over the weights.
const LOGIT_ROWS: usize = 96;

/// A network's weights in panels, and the workspace that its calls share.
#[derive(Debug)]
pub(crate) struct Engine {
    weights: Weights,
    workspace: Workspace,
    early: EarlyProducts,
}

impl Engine {
    /// Packs a network for this processor's widest instruction set.
    pub(crate) fn new(network: &Network, precision: Precision) -> Result<Self> {
        Self::for_instructions(network, Numbers::Tensors(precision), instructions())
    }

    /// Packs a quantised network: its matrices are the blocks, and all else the network's.
    pub(crate) fn quantized(network: &Network, matrices: &QuantizedMatrices) -> Result<Self> {
        Self::for_instructions(network, Numbers::Blocks(matrices), instructions())
    }

    fn for_instructions(network: &Network, numbers: Numbers<'_>, instructions: Arch) -> Result<Self> {
        let weights = Weights::new(network, instructions, numbers)?;
        let workspace = Workspace::new(weights.layers.len(), weights.vocab_size)?;
        let early = EarlyProducts::new(weights.layers.len(), ROOM)?;
        Ok(Self { weights, workspace, early })
    }

    /// Bytes of all weights in memory.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Feeds every row's tokens, hands over what every row wants, in the rows' order, and then writes the states. The
    /// tokens are in the vocabulary and the states of the network's size.
    pub(crate) fn forward(
        &mut self,
        rows: &mut [Row<'_>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<()> {
        self.workspace.block.fill(rows.iter().map(|row| (row.tokens, row.want)));
        self.early.begin(self.workspace.block.order.len());
        if !self.workspace.block.order.is_empty() {
            self.reserve()?;
            self.load(rows)?;
            for layer in 0..self.weights.layers.len() {
                let place = (layer, self.panels());
                self.early.read(place, |known| self.run_layer(layer, known))??;
            }
        }
        self.predict(rows, receive)?;
        self.store(rows)
    }

    /// Whether [`Engine::compute_early`] has anything to do.
    pub(crate) fn has_early_work(&self) -> bool {
        self.early.due().is_some()
    }

    /// Computes a part of what the sequences of the last forward take in their next one whatever is fed to them.
    pub(crate) fn compute_early(&mut self) -> Result<()> {
        let Some(layer) = self.early.due() else { return Ok(()) };
        let Workspace { block, states, scratch: [_, scratch], .. } = &mut self.workspace;
        let lanes = self.weights.lanes;
        let panels = self.weights.hidden_size.div_ceil(lanes);
        let layout = StateLayout { packing: &block.packing, panels, lanes };
        let recurrent = &self.weights.layers[layer].recurrent;
        self.early.compute(recurrent, layout, &states[layer], scratch.get_mut())
    }

    fn layout(&self) -> StateLayout<'_> {
        let packing = &self.workspace.block.packing;
        StateLayout { packing, panels: self.panels(), lanes: self.weights.lanes }
    }

    /// Panels of a layer's gates.
    fn panels(&self) -> usize {
        self.weights.hidden_size.div_ceil(self.weights.lanes)
    }

    fn reserve(&mut self) -> Result<()> {
        let size = self.layout().size();
        let rows = self.workspace.block.packing.rows();
        let hidden = self.panels() * self.weights.lanes;
        let embedding = self.weights.input.width(self.weights.lanes);
        self.workspace.states.iter_mut().try_for_each(|states| states.reserve(size))?;
        self.workspace.below.reserve(rows * hidden.max(embedding))?;
        self.workspace.gates.reserve(rows * 4 * hidden)
    }

    /// The states of the call's rows into the first regions.
    fn load(&mut self, rows: &[Row<'_>]) -> Result<()> {
        self.early.look_up(self.workspace.block.order.iter().map(|&row| rows[row].state.ticket()));
        let (layout, size) = (self.layout(), self.weights.hidden_size);
        let order = &self.workspace.block.order;
        for (layer, states) in self.workspace.states.iter().enumerate() {
            states.write("lstm-load", |states| {
                for (place, &row) in order.iter().enumerate() {
                    let values = &rows[row].state.values()[2 * layer * size..][..2 * size];
                    let (hidden, cell) = values.split_at(size);
                    let chunks = hidden.chunks(layout.lanes).zip(cell.chunks(layout.lanes));
                    for ((hidden, cell), place) in chunks.zip(layout.places(order.len(), place)) {
                        let (hidden_place, cell_place) = states[place].split_at_mut(layout.lanes);
                        hidden_place[..hidden.len()].copy_from_slice(hidden);
                        cell_place[..cell.len()].copy_from_slice(cell);
                        // Lanes beyond the last unit read as zero, whatever stood there.
                        hidden_place[hidden.len()..].fill(0.0);
                        cell_place[cell.len()..].fill(0.0);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// All steps of a layer, of whose first one these products are known.
    fn run_layer(&self, index: usize, known: Option<Known<'_>>) -> Result<()> {
        let (workspace, layout) = (&self.workspace, self.layout());
        let (packing, tokens) = (layout.packing, workspace.block.tokens.as_slice());
        let layer = &self.weights.layers[index];
        let recurrent = RecurrentSide { weights: &layer.recurrent, known };
        let (states, rows) = (&workspace.states[index], packing.rows());
        let [below_scratch, own_scratch] = &workspace.scratch;
        let (mut below_scratch, mut own_scratch) = (below_scratch.borrow_mut(), own_scratch.borrow_mut());
        let (below_scratch, own_scratch) = (&mut *below_scratch, &mut *own_scratch);
        let affine = match (&layer.input, &self.weights.input) {
            (None, TokenInput::Table(table)) => {
                return states.write("lstm-layer", |states| {
                    steps(layout, states, recurrent, own_scratch, |step| GateInput::Table {
                        table,
                        tokens: &tokens[packing.span(step)],
                    });
                });
            }
            (Some(affine), _) => affine,
            (None, _) => candle_core::bail!("layer {index} has no input side"),
        };
        if index == 0 {
            self.embed()?;
        } else if packing.steps() == 1 {
            // The hidden vectors below stand where that layer's only step left them.
            return states.write_from("lstm-layer", &workspace.states[index - 1], |states, below| {
                let below = Activations { values: &below[layout.after(0)], rows, stride: 2 * layout.lanes };
                let rows = affine.matrix().rows(below, rows, below_scratch);
                steps(layout, states, recurrent, own_scratch, |_| GateInput::Below { affine, rows });
            });
        } else {
            workspace.below.write_from("lstm-hidden", &workspace.states[index - 1], |below, states| {
                gather_hidden(layout, states, below);
            })?;
        }
        if packing.steps() == 1 {
            return states.write_from("lstm-layer", &workspace.below, |states, below| {
                let below = Activations { values: below, rows, stride: layout.lanes };
                let rows = affine.matrix().rows(below, rows, below_scratch);
                steps(layout, states, recurrent, own_scratch, |_| GateInput::Below { affine, rows });
            });
        }
        workspace.gates.write_from("lstm-input", &workspace.below, |gates, below| {
            let below = Activations { values: below, rows, stride: layout.lanes };
            let gates = &mut gates[..rows * affine.panels() * affine.width()];
            project(affine, below, gates, below_scratch);
        })?;
        states.write_from("lstm-layer", &workspace.gates, |states, gates| {
            steps(layout, states, recurrent, own_scratch, |step| GateInput::Projected {
                gates,
                rows,
                first: packing.span(step).start,
            });
        })
    }

    /// The tokens' embeddings as the rows below the first layer.
    fn embed(&self) -> Result<()> {
        let (tokens, lanes) = (&self.workspace.block.tokens, self.weights.lanes);
        let (input, output) = (&self.weights.input, self.weights.output.matrix());
        let mut row = self.workspace.embedding.borrow_mut();
        row.clear();
        row.resize(input.width(lanes), 0.0);
        self.workspace.below.write("embed", |below| {
            for (place, &token) in tokens.iter().enumerate() {
                input.read(token as usize, output, &mut row);
                for (group, values) in row.chunks_exact(lanes).enumerate() {
                    below[(group * tokens.len() + place) * lanes..][..lanes].copy_from_slice(values);
                }
            }
        })
    }

    /// The output layer over the wanted rows, as many at a time as their logits fit into a cache.
    fn predict(&mut self, rows: &[Row<'_>], receive: &mut dyn FnMut(Prediction<'_>)) -> Result<()> {
        let vocab_size = self.weights.vocab_size;
        let most = (LOGITS / vocab_size).max(LOGIT_ROWS);
        let wanted = std::mem::take(&mut self.workspace.block.wanted);
        for wanted in wanted.chunks(part(wanted.len(), most)) {
            self.select(wanted, rows)?;
            self.project_output(wanted.len())?;
            self.hand_over(wanted, receive)?;
        }
        self.workspace.block.wanted = wanted;
        Ok(())
    }

    /// The hidden vectors of wanted rows into the order of activations.
    fn select(&mut self, wanted: &[Wanted], rows: &[Row<'_>]) -> Result<()> {
        let (lanes, hidden_size) = (self.weights.lanes, self.weights.hidden_size);
        let count = wanted.len();
        let numbers = self.panels() * lanes * count;
        self.workspace.selected.reserve(numbers)?;
        let layout = self.layout();
        let Some(top) = self.workspace.states.last() else { return Ok(()) };
        let before = 2 * (self.workspace.states.len() - 1) * hidden_size;
        self.workspace.selected.write_from("select", top, |selected, states| {
            for (index, wanted) in wanted.iter().enumerate() {
                let slot =
                    |group: usize| (group * count + index) * lanes..(group * count + index + 1) * lanes;
                match wanted.source {
                    Source::Before => {
                        let hidden = &rows[wanted.row].state.values()[before..][..hidden_size];
                        for (group, hidden) in hidden.chunks(lanes).enumerate() {
                            let slot = &mut selected[slot(group)];
                            slot[..hidden.len()].copy_from_slice(hidden);
                            slot[hidden.len()..].fill(0.0);
                        }
                    }
                    Source::After { step, place } => {
                        let states = &states[layout.after(step)];
                        let places = layout.places(layout.packing.batch_sizes()[step], place);
                        for (group, place) in places.enumerate() {
                            selected[slot(group)].copy_from_slice(&states[place][..lanes]);
                        }
                    }
                }
            }
        })
    }

    fn project_output(&mut self, count: usize) -> Result<()> {
        let (output, lanes) = (&self.weights.output, self.weights.lanes);
        let numbers = count * output.panels() * output.width();
        self.workspace.logits.reserve(numbers)?;
        let scratch = self.workspace.scratch[0].get_mut();
        self.workspace.logits.write_from("output", &self.workspace.selected, |logits, selected| {
            let rows = Activations { values: selected, rows: count, stride: lanes };
            project(output, rows, &mut logits[..numbers], scratch);
        })
    }

    /// Each row of logits in the vocabulary's order, with its norm.
    fn hand_over(&mut self, wanted: &[Wanted], receive: &mut dyn FnMut(Prediction<'_>)) -> Result<()> {
        let width = self.weights.output.width();
        let (count, row) = (wanted.len(), &mut self.workspace.row);
        self.workspace.logits.read(|panels| {
            for (index, wanted) in wanted.iter().enumerate() {
                let logits = if count == 1 {
                    // The panels of a single row are the row.
                    &panels[..row.len()]
                } else {
                    let own = panels.chunks_exact(width).skip(index).step_by(count);
                    row.chunks_mut(width)
                        .zip(own)
                        .for_each(|(row, own)| row.copy_from_slice(&own[..row.len()]));
                    &*row
                };
                receive(Prediction { row: wanted.row, offset: wanted.offset, logits, norm: norm(logits) });
            }
        })
    }

    /// Every sequence's h and c after its last token into its state.
    fn store(&mut self, rows: &mut [Row<'_>]) -> Result<()> {
        let (layout, size) = (self.layout(), self.weights.hidden_size);
        for (layer, states) in self.workspace.states.iter().enumerate() {
            states.read(|states| {
                for (place, &row) in self.workspace.block.order.iter().enumerate() {
                    let step = rows[row].tokens.len() - 1;
                    let states = &states[layout.after(step)];
                    let values = &mut rows[row].state.values_mut()[2 * layer * size..][..2 * size];
                    let (hidden, cell) = values.split_at_mut(size);
                    let chunks = hidden.chunks_mut(layout.lanes).zip(cell.chunks_mut(layout.lanes));
                    let places = layout.places(layout.packing.batch_sizes()[step], place);
                    for ((hidden, cell), place) in chunks.zip(places) {
                        let (hidden_place, cell_place) = states[place].split_at(layout.lanes);
                        hidden.copy_from_slice(&hidden_place[..hidden.len()]);
                        cell.copy_from_slice(&cell_place[..cell.len()]);
                    }
                }
            })?;
        }
        for (place, &row) in self.workspace.block.order.iter().enumerate() {
            let row = &mut rows[row];
            if is_likely_to_go_on(row) {
                row.state.mark(self.early.expect(row.tokens.len() - 1, place));
            }
        }
        Ok(())
    }
}

/// Whether another token is likely to follow: where the next one is asked for, or one came alone. A text that is scored
/// comes in few large pieces.
fn is_likely_to_go_on(row: &Row<'_>) -> bool {
    match row.want {
        Want::Next => true,
        Want::Nothing => row.tokens.len() == 1,
        Want::Each => false,
    }
}

/// How many of `count` rows are computed together, at most `most`: in equal parts, since a few that are left over would pass
/// over all weights for themselves.
fn part(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most).max(1)).max(1)
}

/// What a layer's steps take of its own states.
#[derive(Clone, Copy)]
struct RecurrentSide<'a> {
    weights: &'a Recurrent,
    /// Of the first step's products.
    known: Option<Known<'a>>,
}

/// Runs every step of a layer's block, each from the gate input that `input` makes of its number.
fn steps<'a>(
    layout: StateLayout<'_>,
    states: &mut [f32],
    RecurrentSide { weights, known }: RecurrentSide<'_>,
    scratch: &mut Scratch,
    input: impl Fn(usize) -> GateInput<'a>,
) {
    for (index, &size) in layout.packing.batch_sizes().iter().enumerate() {
        let (region, rows) = layout.before(index);
        let after = layout.after(index);
        let (before, rest) = states.split_at_mut(after.start);
        let before = Activations { values: &before[region], rows, stride: 2 * layout.lanes };
        let known = known.filter(|_| index == 0);
        let to_multiply =
            if known.is_some_and(|known| known.unknown(size, weights.panels()) == 0) { 0 } else { size };
        let hidden = weights.matrix().rows(before, to_multiply, scratch);
        let step = Step { input: input(index), recurrent: weights, before, hidden, known, rows: size };
        step.run(&mut rest[..after.len()]);
    }
}

/// The hidden vectors of all steps as rows of a block: `[panels][rows][lanes]`.
fn gather_hidden(layout: StateLayout<'_>, states: &[f32], hidden: &mut [f32]) {
    let (rows, lanes) = (layout.packing.rows(), layout.lanes);
    for (step, &size) in layout.packing.batch_sizes().iter().enumerate() {
        let (span, states) = (layout.packing.span(step), &states[layout.after(step)]);
        for (panel, states) in states.chunks_exact(size * 2 * lanes).enumerate() {
            let hidden = &mut hidden[(panel * rows + span.start) * lanes..][..size * lanes];
            for (hidden, state) in hidden.chunks_exact_mut(lanes).zip(states.chunks_exact(2 * lanes)) {
                hidden.copy_from_slice(&state[..lanes]);
            }
        }
    }
}

#[cfg(test)]
mod early_tests;
#[cfg(test)]
mod tests;
