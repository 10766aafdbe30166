//! A call: slots in, launches, answers out, slots taken over. Knows nothing about the arithmetic of any of it.

use candle_core::{Device, Result as TensorResult, bail};
use chorus_kernels::{Address, Answer, WeightKind};
use chorus_simd::{Norm, Reduced, Reduction};

use super::answers::{Asks, Room, found};
use super::call::{Words, most_words};
use super::launcher::{HostMemory, Launcher, Mark, Recording};
use super::launches::{Launches, Regions, most_ids};
use super::memory::Memory;
use super::output::{AnswerPlaces, OutputPlaces, slot_source};
use super::recurrence::BlockPlaces;
use super::slots::{Slot, Slots};
use super::weights::{Sizes, Weights};
use crate::block::{Block, Source, Wanted};
use crate::capacity::{Capacity, DeviceMemory, mebibytes};
use crate::config::Config;
use crate::forward_error::ForwardError;
use crate::network::Network;
use crate::row::{Place, State, Want};

/// Words of lists that a part of a call may ask for, at least: the answer to one ask always fits.
const LIST_WORDS: usize = 1 << 18;
/// Bytes of whole rows that are copied to the host at a time, about.
const ROW_BYTES: usize = 8 << 20;

/// A model on a device.
#[derive(Debug)]
pub(crate) struct DeviceEngine {
    launcher: Launcher,
    weights: Weights,
    capacity: Capacity,
    room: Room,
    regions: Regions,
    memory: Memory,
    slots: Slots,
    block: Block,
    /// Words and answers of the part that runs, and of the one before it.
    parts: [PartMemory; 2],
    /// Whole rows on their way to the host, two copies in turns.
    rows: [HostMemory; 2],
    /// A state on its way to the host.
    state: HostMemory,
    held: DeviceMemory,
    /// Whether launches of a call that did not come to its end may still use the host's memory.
    is_unfinished: bool,
}

/// What a part of a call shares with the device.
#[derive(Debug)]
struct PartMemory {
    words: HostMemory,
    /// [`Answer`]s, then lists.
    answers: HostMemory,
    asks: Asks,
}

/// One sequence's part of a call.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) tokens: &'a [u32],
    pub(crate) want: Want,
    pub(crate) reduction: Reduction<'a>,
}

/// Tokens of a sequence that are fed together.
#[derive(Debug, Clone)]
struct Fed<'a> {
    /// Which row of the call.
    row: usize,
    from: Slot,
    tokens: &'a [u32],
    want: Want,
    reduction: Reduction<'a>,
    /// Of the row's distributions the first that this part wants.
    offset: usize,
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
type Receive<'a> = &'a mut dyn FnMut(Found<'_>);

/// Whose answers the device is at.
struct Pending {
    mark: Mark,
    /// Which of the two memories.
    side: usize,
    wanted: std::ops::Range<usize>,
}

impl DeviceEngine {
    /// Puts a network, whose tensors are on the host, to where its kernels read it.
    ///
    /// # Errors
    /// The device has not the memory, which is said before anything is taken; or it fails.
    pub(crate) fn new(
        launcher: Launcher,
        network: &Network,
        config: &Config,
        kind: WeightKind,
        capacity: Capacity,
        device: &Device,
    ) -> TensorResult<Self> {
        let (sizes, rows) = (Sizes::new(config, kind), capacity.rows(config));
        let (regions, plan) = Regions::plan(sizes, kind, capacity, rows);
        let weights = Weights::new(network, config, kind, (&launcher, device))?;
        let memory = Memory::take(&plan, device)?;
        let slots = u32::try_from(capacity.slots()).map_err(candle_core::Error::wrap)?;
        let room =
            Room { asks: rows, ids: most_ids(sizes), list_words: LIST_WORDS.max(2 * sizes.vocabulary) };
        let words = most_words(capacity.tokens, rows, room.ids) * size_of::<u32>();
        let answers = rows * size_of::<Answer>() + room.list_words * size_of::<u32>();
        let part = || {
            let (words, answers) = (launcher.host_memory(words)?, launcher.host_memory(answers)?);
            TensorResult::Ok(PartMemory { words, answers, asks: Asks::default() })
        };
        let row_bytes = sizes.outputs * size_of::<f32>();
        let row_memory = || launcher.host_memory(row_bytes.max(ROW_BYTES.min(rows * row_bytes)));
        let states = (capacity.slots() * sizes.slot() * size_of::<f32>()) as u64;
        let workspace = (plan.bytes() as u64).saturating_sub(states);
        Ok(Self {
            held: DeviceMemory { weights: weights.bytes(), states, workspace },
            is_unfinished: false,
            parts: [part()?, part()?],
            rows: [row_memory()?, row_memory()?],
            state: launcher.host_memory(sizes.slot() * size_of::<f32>())?,
            block: Block::default(),
            slots: Slots::new(slots),
            launcher,
            weights,
            capacity,
            room,
            regions,
            memory,
        })
    }

    /// What a model takes of a device, and whether that is there.
    ///
    /// # Errors
    /// It is not: with the numbers.
    pub(crate) fn check_memory(
        launcher: &Launcher,
        config: &Config,
        kind: WeightKind,
        capacity: Capacity,
    ) -> TensorResult<DeviceMemory> {
        let (sizes, rows) = (Sizes::new(config, kind), capacity.rows(config));
        let (weights, loading) = sizes.weight_bytes(config, kind);
        let states = (capacity.slots() * sizes.slot() * size_of::<f32>()) as u64;
        let (_, plan) = Regions::plan(sizes, kind, capacity, rows);
        let needed =
            DeviceMemory { weights, states, workspace: (plan.bytes() as u64).saturating_sub(states) };
        let (free, all) = launcher.free_bytes()?;
        if needed.total() + loading > free {
            let (loading, free, all) = (mebibytes(loading), mebibytes(free), mebibytes(all));
            bail!(
                "it takes {needed} of the device's memory, and {loading} MiB more while it is loaded, but {free} of \
                 {all} MiB are free: fewer sessions, smaller batches or bf16 take less"
            );
        }
        Ok(needed)
    }

    /// Memory of the device that is taken.
    pub(crate) fn memory(&self) -> DeviceMemory {
        self.held
    }

    /// A state of these numbers, `[layers, 2, hidden_size]`.
    pub(crate) fn restore(&mut self, values: &[f32]) -> Result<State, ForwardError> {
        let Sizes { hidden, padded, .. } = self.weights.sizes;
        let slot = self.take()?;
        let mut numbers = Vec::with_capacity(self.weights.sizes.slot());
        for vector in values.chunks(hidden) {
            numbers.extend_from_slice(vector);
            numbers.resize(numbers.len() + padded - hidden, 0.0);
        }
        self.memory.write("restore", |memory| {
            // SAFETY: it is a slot of the table, and nobody else has it.
            unsafe { self.launcher.copy_in(&numbers, self.slot(&slot, memory)) }
        })?;
        Ok(State(Place::Slot(slot)))
    }

    /// The numbers of a state.
    pub(crate) fn values(&mut self, state: &State) -> Result<Vec<f32>, ForwardError> {
        let slot = self.own(state)?;
        let Sizes { hidden, padded, .. } = self.weights.sizes;
        let numbers = self.weights.sizes.slot();
        let bytes = numbers * size_of::<f32>();
        let offset = slot.index() as usize * bytes;
        let Self { launcher, regions, memory, state: copy, .. } = self;
        memory.write("values", |memory| {
            // SAFETY: it is a slot of the table.
            unsafe { launcher.copy_out(regions.slots.at(memory).plus(offset), copy, bytes) }?;
            launcher.finish()
        })?;
        let numbers = &copy.numbers::<f32>()[..numbers];
        Ok(numbers.chunks_exact(padded).flat_map(|vector| &vector[..hidden]).copied().collect())
    }

    /// Feeds every part's tokens and hands over what each wants: in order for each row, in any order between rows. On an
    /// error no state has changed.
    pub(crate) fn forward(
        &mut self,
        parts: &mut [Part<'_>],
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        let mut states: Vec<Slot> =
            parts.iter().map(|part| self.own(part.state)).collect::<Result<_, _>>()?;
        let most = self.capacity.tokens.max(1);
        let mut first = 0;
        while first < parts.len() {
            let count = most.min(parts.len() - first);
            let group = first..first + count;
            self.group(&parts[group.clone()], first, &mut states[group], receive)?;
            first += count;
        }
        for (part, slot) in parts.iter_mut().zip(states) {
            *part.state = State(Place::Slot(slot));
        }
        Ok(())
    }

    /// Rows that are no more than tokens of a block, in as many blocks as their tokens take.
    fn group(
        &mut self,
        parts: &[Part<'_>],
        first: usize,
        states: &mut [Slot],
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        let total: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let longest = parts.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
        let each = if total <= self.capacity.tokens { longest } else { self.capacity.tokens / parts.len() };
        let mut start = 0;
        loop {
            let end = start + each.max(1);
            let fed = (first..).zip(parts).zip(&*states).filter_map(|((row, part), from)| {
                let is_last = end >= part.tokens.len();
                // Whoever has no tokens at all is in the first block.
                if start > 0 && start >= part.tokens.len() {
                    return None;
                }
                let want = match part.want {
                    Want::Next if !is_last => Want::Nothing,
                    want => want,
                };
                let tokens = part.tokens.get(start..end.min(part.tokens.len())).unwrap_or(&[]);
                let offset = if part.want == Want::Each { start } else { 0 };
                Some(Fed { row, from: from.clone(), tokens, want, reduction: part.reduction, offset })
            });
            let fed: Vec<Fed<'_>> = fed.collect();
            for (row, slot) in self.run(&fed, receive)? {
                states[row - first] = slot;
            }
            if end >= longest {
                return Ok(());
            }
            start = end;
        }
    }

    /// One block; returns the new state of every row that was fed.
    fn run(&mut self, fed: &[Fed<'_>], receive: Receive<'_>) -> Result<Vec<(usize, Slot)>, ForwardError> {
        self.settle()?;
        self.block.fill(fed.iter().map(|fed| (fed.tokens, fed.want)));
        let to = self.block.order.iter().map(|_| self.take()).collect::<Result<Vec<_>, _>>()?;
        self.is_unfinished = true;
        self.compute(fed, &to, receive)?;
        self.is_unfinished = false;
        Ok(self.block.order.iter().map(|&index| fed[index].row).zip(to).collect())
    }

    /// The block, and the wanted distributions part by part: while the host takes in one part, the device computes the next.
    fn compute(&mut self, fed: &[Fed<'_>], to: &[Slot], receive: Receive<'_>) -> Result<(), ForwardError> {
        let mut pending: Option<Pending> = None;
        let (mut start, mut side) = (0, 0);
        loop {
            let is_first = start == 0;
            let count = self.ask(fed, start, side);
            let wanted = start..start + count;
            let has_rows = self.parts[side].asks.has_rows();
            if count > 0 || is_first {
                self.launch(fed, to, wanted.clone(), side, is_first)?;
            }
            if let Some(before) = pending.take() {
                self.deliver(fed, &before, receive)?;
            }
            if has_rows {
                self.launcher.finish()?;
                self.deliver_rows(fed, wanted.clone(), side, receive)?;
            } else {
                pending = Some(Pending { mark: self.launcher.mark()?, side, wanted: wanted.clone() });
            }
            start = wanted.end;
            if start >= self.block.wanted.len() {
                break;
            }
            side = 1 - side;
        }
        if let Some(last) = pending {
            self.deliver(fed, &last, receive)?;
        }
        Ok(())
    }

    /// Takes in as many asks from a wanted distribution on as fit into a part.
    fn ask(&mut self, fed: &[Fed<'_>], start: usize, side: usize) -> usize {
        let asks = &mut self.parts[side].asks;
        asks.clear();
        let vocabulary = self.weights.sizes.vocabulary;
        for wanted in &self.block.wanted[start..] {
            let row = &fed[wanted.row];
            let target = row.tokens.get(wanted.offset).copied().filter(|_| row.want == Want::Each);
            if !asks.push(row.reduction, target, vocabulary, self.room) {
                break;
            }
        }
        asks.asks.len()
    }

    fn launch(
        &mut self,
        fed: &[Fed<'_>],
        to: &[Slot],
        wanted: std::ops::Range<usize>,
        side: usize,
        is_first: bool,
    ) -> Result<(), ForwardError> {
        let Self { launcher, weights, regions, memory, block, parts, room, .. } = self;
        let PartMemory { words: host_words, answers, asks } = &mut parts[side];
        let packing = &block.packing;
        let has_block = is_first && !block.order.is_empty();
        let mut words = Words::new(host_words.numbers_mut::<u32>());
        let block_places = has_block.then(|| BlockPlaces {
            tokens: words.list(block.tokens.iter().copied()),
            offsets: words.list(
                (0..packing.steps())
                    .map(|step| packing.span(step).start as u32)
                    .chain([packing.rows() as u32]),
            ),
            from: words.list(block.order.iter().map(|&index| fed[index].from.index())),
            to: words.list(to.iter().map(Slot::index)),
        });
        let sources = block.wanted[wanted.clone()].iter().map(|wanted| source(wanted, fed, block, to));
        let output_places = (!wanted.is_empty()).then(|| OutputPlaces {
            sources: words.list(sources.clone()),
            asks: words.asks(&asks.asks),
            ids: words.list(asks.ids.iter().copied()),
            rows: wanted.len(),
            are_slots: sources.clone().all(|source| source & chorus_kernels::IS_SLOT != 0),
        });
        let used = words.used();
        let answer_places = AnswerPlaces {
            answers: answers.address(),
            lists: answers.address().plus(room.asks * size_of::<Answer>()),
        };
        let source = host_words.address();
        // The launches of a step without ids are the same whenever it has as many rows.
        let is_step = is_first && packing.steps() == 1 && asks.ids.is_empty();
        let recording = is_step.then_some(Recording { rows: packing.batch(), wanted: wanted.len() });
        let properties = launcher.properties();
        memory.write("lstm", |memory| {
            let launches = Launches { launcher, properties, weights, regions, memory };
            launcher.run(recording, &|| {
                launches.begin(source, used)?;
                block_places.map_or(Ok(()), |places| launches.block(packing, places))?;
                output_places.map_or(Ok(()), |places| launches.output(places, answer_places))
            })
        })?;
        Ok(())
    }

    /// Hands over what was found, once the device is there.
    fn deliver(&self, fed: &[Fed<'_>], pending: &Pending, receive: Receive<'_>) -> Result<(), ForwardError> {
        pending.mark.wait()?;
        let range = pending.wanted.clone();
        for (index, wanted) in self.block.wanted[range].iter().enumerate() {
            self.hand_over(&fed[wanted.row], wanted.offset, (pending.side, index), &[], receive);
        }
        Ok(())
    }

    /// The same where whole rows are among it: one copy is on its way while the rows of the last one are taken in.
    fn deliver_rows(
        &mut self,
        fed: &[Fed<'_>],
        range: std::ops::Range<usize>,
        side: usize,
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        let Sizes { outputs, vocabulary, .. } = self.weights.sizes;
        let row_bytes = outputs * size_of::<f32>();
        let most = (self.rows[0].numbers::<f32>().len() / outputs).max(1);
        let groups: Vec<_> =
            (0..range.len()).step_by(most).map(|first| first..(first + most).min(range.len())).collect();
        let mut marks: Vec<Mark> = Vec::with_capacity(groups.len());
        for step in 0..=groups.len() {
            if let Some(group) = groups.get(step) {
                let Self { launcher, regions, memory, rows, .. } = self;
                memory.write("copy-rows", |memory| {
                    let from = regions.logits.at(memory).plus(group.start * row_bytes);
                    // SAFETY: the logits of this part stand there.
                    unsafe { launcher.copy_out(from, &mut rows[step % 2], group.len() * row_bytes) }
                })?;
                marks.push(self.launcher.mark()?);
            }
            let Some(group) = step.checked_sub(1).and_then(|last| groups.get(last)) else { continue };
            marks[step - 1].wait()?;
            let copy = self.rows[(step - 1) % 2].numbers::<f32>();
            for (index, row) in group.clone().zip(copy.chunks_exact(outputs)) {
                let wanted = self.block.wanted[range.start + index];
                self.hand_over(&fed[wanted.row], wanted.offset, (side, index), &row[..vocabulary], receive);
            }
        }
        Ok(())
    }

    fn hand_over(
        &self,
        fed: &Fed<'_>,
        offset: usize,
        (side, index): (usize, usize),
        row: &[f32],
        receive: Receive<'_>,
    ) {
        let PartMemory { answers, asks, .. } = &self.parts[side];
        let words = answers.numbers::<u32>();
        let (answers, lists) = words.split_at(self.room.asks * Answer::WORDS);
        let Some(words) = answers.as_chunks::<{ Answer::WORDS }>().0.get(index) else { return };
        let (norm, target, reduced) = found(&asks.asks[index], &Answer::from_words(words), lists, row);
        receive(Found { row: fed.row, offset: fed.offset + offset, norm, target, reduced });
    }

    /// Waits for what an error or a panic left behind.
    fn settle(&mut self) -> TensorResult<()> {
        if std::mem::take(&mut self.is_unfinished) { self.launcher.finish() } else { Ok(()) }
    }

    fn take(&self) -> Result<Slot, ForwardError> {
        self.slots.take().ok_or(ForwardError::NoSlot { slots: self.slots.count() })
    }

    fn own(&self, state: &State) -> Result<Slot, ForwardError> {
        match &state.0 {
            Place::Slot(slot) if self.slots.has(slot) => Ok(slot.clone()),
            _ => Err(ForwardError::ForeignState),
        }
    }

    fn slot(&self, slot: &Slot, memory: Address) -> Address {
        let bytes = self.weights.sizes.slot() * size_of::<f32>();
        self.regions.slots.at(memory).plus(slot.index() as usize * bytes)
    }
}

impl Drop for DeviceEngine {
    fn drop(&mut self) {
        // A device that can't be waited for does nothing any more.
        let _ = self.settle();
    }
}

/// Where the hidden vector of a wanted distribution stands: states of sequences are in their slots.
fn source(wanted: &Wanted, fed: &[Fed<'_>], block: &Block, to: &[Slot]) -> u32 {
    match wanted.source {
        Source::Before => slot_source(fed[wanted.row].from.index()),
        Source::After { step, place } if step + 1 == block.packing.length(place) => {
            slot_source(to[place].index())
        }
        Source::After { step, place } => block.packing.row(step, place) as u32,
    }
}
