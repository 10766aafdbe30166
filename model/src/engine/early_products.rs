//! Recurrent products computed early. W h of a sequence's next step depends on its state and not on the token that is fed, so
//! it can be computed while whoever chooses the token is at it; when the token comes, only its own side is left.
//!
//! Kept by ticket: a state that has one finds its products as long as later ones have not taken their room. As far as they are
//! computed: whoever comes earlier computes the rest. Knows nothing about when there is time for it.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use candle_core::Result;
use pulp::{Simd, WithSimd};

use super::matrix::{Rows, Scratch};
use super::operation::Buffer;
use super::panels::VECTORS;
use super::product::{Activations, BLOCK_ROWS, Sums};
use super::weights::Recurrent;
use super::workspace::StateLayout;
use crate::row::Ticket;

/// Sequences whose products are kept, of 16 H bytes each for a layer.
pub(super) const ROOM: usize = 256;

/// Multiplications of a part, some 100 µs of one core's work: whatever comes meanwhile waits for one.
const OF_A_PART: usize = 1 << 23;
/// Bytes of weights that a part reads, as long: of few sequences nothing else takes time.
const BYTES_OF_A_PART: usize = 2 << 20;

/// The next ticket of any engine: none is mistaken for another's.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// The products of sequences that are likely to go on.
#[derive(Debug)]
pub(super) struct EarlyProducts {
    /// Of each layer, `[panels][room][4][lanes]`.
    products: Vec<Buffer>,
    /// Whose are there, and how many panels of them, layer by layer.
    kept: Vec<Kept>,
    /// For each sequence of the forward that runs, where its products are, if they are.
    found: Vec<Option<Slot>>,
    /// Sequences of the last forward, whose products are to be computed,
    runs: Vec<Run>,
    /// in parts of so many multiplications,
    pub(super) of_a_part: usize,
    /// and have been up to this layer
    layer: usize,
    /// and this panel of it.
    panel: usize,
    /// The ticket of the next of them.
    next: Ticket,
}

/// What a slot has.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    ticket: Ticket,
    panels: usize,
}

/// Where a state's products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    index: usize,
    /// How many panels of them are there, layer by layer.
    panels: usize,
}

/// Sequences side by side in the workspace, whose last step was the same.
#[derive(Debug, Clone, Copy)]
struct Run {
    step: usize,
    /// The first one's place in the packed batch.
    place: usize,
    /// Its ticket, which the others' follow.
    ticket: NonZeroU64,
    count: usize,
}

/// What is there of a layer's products for the rows of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    products: &'a [f32],
    room: usize,
    /// Panels of the layers before.
    before: usize,
    /// For each row, where its are.
    slots: &'a [Option<Slot>],
}

impl EarlyProducts {
    /// Of so many layers, with room for so many sequences.
    pub(super) fn new(layers: usize, room: usize) -> Result<Self> {
        let products = (0..layers).map(|_| Buffer::empty()).collect::<Result<_>>()?;
        Ok(Self {
            products,
            kept: vec![Kept::default(); room],
            found: Vec::new(),
            runs: Vec::new(),
            of_a_part: OF_A_PART,
            layer: 0,
            panel: 0,
            next: None,
        })
    }

    /// Looks for what is there of the states of a forward that begins, in the packed batch's order.
    pub(super) fn look_up(&mut self, tickets: impl Iterator<Item = Ticket>) {
        let Self { kept, found, .. } = self;
        found.clear();
        found.extend(tickets.map(|ticket| {
            let index = slot(ticket?, kept.len());
            let Kept { ticket: whose, panels } = kept[index];
            (whose == ticket && panels > 0).then_some(Slot { index, panels })
        }));
    }

    /// What was found of a layer's products; each layer has so many panels.
    pub(super) fn read<T>(
        &self,
        (layer, panels): (usize, usize),
        reader: impl FnOnce(Option<Known<'_>>) -> T,
    ) -> Result<T> {
        let (room, before, slots) = (self.kept.len(), layer * panels, self.found.as_slice());
        if slots.iter().flatten().all(|slot| slot.panels <= before) {
            return Ok(reader(None));
        }
        self.products[layer].read(|products| reader(Some(Known { products, room, before, slots })))
    }

    /// What is still to be computed is not, any more: the workspace is written anew. At most so many sequences may be expected
    /// after that.
    pub(super) fn begin(&mut self, sequences: usize) {
        self.runs.clear();
        (self.layer, self.panel) = (0, 0);
        self.next = NonZeroU64::new(TICKETS.fetch_add(sequences as u64, Ordering::Relaxed));
    }

    /// The sequence at this place ended with this step of the block, and is likely to go on. None where there is no room.
    pub(super) fn expect(&mut self, step: usize, place: usize) -> Ticket {
        let ticket = self.next?;
        let expected = self.runs.first().map_or(0, |first| ticket.get() - first.ticket.get());
        if expected >= self.kept.len() as u64 {
            return None;
        }
        self.next = ticket.checked_add(1);
        match self.runs.last_mut() {
            Some(run) if (run.step, run.place + run.count) == (step, place) => run.count += 1,
            _ => self.runs.push(Run { step, place, ticket, count: 1 }),
        }
        Some(ticket)
    }

    /// The layer of which [`EarlyProducts::compute`] computes a part next.
    pub(super) fn due(&self) -> Option<usize> {
        (!self.runs.is_empty() && self.layer < self.products.len()).then_some(self.layer)
    }

    /// A part of the products of the layer that is due, from its states in the workspace.
    pub(super) fn compute(
        &mut self,
        recurrent: &Recurrent,
        layout: StateLayout<'_>,
        states: &Buffer,
        scratch: &mut Scratch,
    ) -> Result<()> {
        // What fails is not tried again.
        let runs = std::mem::take(&mut self.runs);
        let products = &mut self.products[self.layer];
        let room = self.kept.len();
        let size = room * VECTORS * layout.lanes;
        products.reserve(layout.panels * size)?;
        let sequences: usize = runs.iter().map(|run| run.count).sum();
        let weights = VECTORS * layout.lanes * recurrent.depth();
        let panels = (self.of_a_part / (sequences * weights).max(1))
            .min(BYTES_OF_A_PART / (weights * size_of::<f32>()).max(1))
            .clamp(1, layout.panels - self.panel);
        for run in &runs {
            if (self.layer, self.panel) == (0, 0) {
                // Whatever was there is gone in all layers.
                run.slots(room).for_each(|slot| self.kept[slot] = Kept::default());
            }
            let rows = layout.packing.batch_sizes()[run.step];
            products.write_from("lstm-early", states, |products, states| {
                let states = &states[layout.after(run.step)];
                let hidden = Activations { values: states, rows, stride: 2 * layout.lanes };
                let hidden = recurrent.matrix().rows(hidden, run.place + run.count, scratch);
                let products = &mut products[self.panel * size..][..panels * size];
                let part = Part { recurrent, hidden, run: *run, room, first: self.panel, products };
                recurrent.instructions().dispatch(part);
            })?;
        }
        self.panel += panels;
        if self.panel == layout.panels {
            (self.layer, self.panel) = (self.layer + 1, 0);
        }
        let panels = self.layer * layout.panels + self.panel;
        let whose = |run: &Run| run.slots(room).zip(run.ticket.get()..);
        for (slot, ticket) in runs.iter().flat_map(whose) {
            self.kept[slot] = Kept { ticket: NonZeroU64::new(ticket), panels };
        }
        self.runs = runs;
        Ok(())
    }

    /// Makes what is kept of no use, for tests to see where it goes.
    #[cfg(test)]
    pub(super) fn spoil(&self) {
        self.products.iter().for_each(|products| products.write("spoil", |all| all.fill(f32::NAN)).unwrap());
    }
}

impl Run {
    /// Where its sequences' products go in a room of this size.
    fn slots(&self, room: usize) -> impl Iterator<Item = usize> + use<> {
        let first = slot(self.ticket, room);
        (first..first + self.count).map(move |slot| slot % room)
    }
}

fn slot(ticket: NonZeroU64, room: usize) -> usize {
    (ticket.get() % room as u64) as usize
}

impl<'a> Known<'a> {
    /// How many of so many rows, from the first, lack some of the layer's panels.
    pub(super) fn unknown(&self, rows: usize, panels: usize) -> usize {
        let is_known = |slot: &&Option<Slot>| slot.is_some_and(|slot| slot.panels >= self.before + panels);
        rows - self.slots[..rows].iter().filter(is_known).count()
    }

    /// From the first of these rows that has no product with a panel to the last; none at their beginning where all have.
    #[inline(always)]
    pub(super) fn unknown_rows(&self, rows: Range<usize>, panel: usize) -> Range<usize> {
        let is_unknown = |row: &usize| self.slot(*row, panel).is_none();
        match rows.clone().find(is_unknown) {
            Some(first) => first..rows.clone().rfind(is_unknown).map_or(first, |last| last + 1),
            None => rows.start..rows.start,
        }
    }

    /// A row's product with a panel, `[4][lanes]`; none if it is not there.
    #[inline(always)]
    pub(super) fn product(&self, row: usize, panel: usize, width: usize) -> Option<&'a [f32]> {
        let slot = self.slot(row, panel)?;
        Some(&self.products[(panel * self.room + slot.index) * width..][..width])
    }

    #[inline(always)]
    fn slot(&self, row: usize, panel: usize) -> Option<Slot> {
        self.slots[row].filter(|slot| slot.panels > self.before + panel)
    }
}

/// A run's products with some panels.
struct Part<'a, 'b> {
    recurrent: &'a Recurrent,
    hidden: Rows<'a>,
    run: Run,
    room: usize,
    /// The first panel.
    first: usize,
    products: &'b mut [f32],
}

impl WithSimd for Part<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { recurrent, hidden, run, room, first, products } = self;
        let zero: Sums<S> = [simd.splat_f32s(0.0); VECTORS];
        let products = S::as_mut_simd_f32s(products).0.as_chunks_mut::<VECTORS>().0;
        for (index, products) in products.chunks_exact_mut(room).enumerate() {
            for begin in (0..run.count).step_by(BLOCK_ROWS) {
                let count = BLOCK_ROWS.min(run.count - begin);
                let mut sums: ArrayVec<Sums<S>, BLOCK_ROWS> = ArrayVec::new();
                (0..count).for_each(|_| sums.push(zero));
                recurrent.matrix().add_product(simd, &mut sums, hidden, run.place + begin, first + index);
                for (sums, slot) in sums.iter().zip(run.slots(room).skip(begin)) {
                    products[slot] = *sums;
                }
            }
        }
    }
}
