//! A model on a device: its weights, its memory, and the states that it holds. Knows nothing about the arithmetic of any of it,
//! nor how a call is cut.

use candle_core::{Device, Result as TensorResult, bail};
use chorus_kernels::{Address, WeightKind};
use chorus_simd::Reduction;

use super::answers::Room;
use super::launcher::{HostMemory, Lane, Launcher};
use super::launches::{Regions, most_ids};
use super::memory::Memory;
use super::side::Side;
use super::slots::{Slot, Slots};
use super::submission::Submissions;
use super::weights::{Sizes, Weights};
use crate::block::Block;
use crate::capacity::{Capacity, DeviceMemory, mebibytes};
use crate::config::Config;
use crate::forward_error::ForwardError;
use crate::network::Network;
use crate::row::{Place, State, Want};

/// Words of lists that a part of a call may ask for, at least: the answer to one ask always fits.
const LIST_WORDS: usize = 1 << 18;

/// A model on a device.
#[derive(Debug)]
pub(crate) struct DeviceEngine {
    pub(super) launcher: Launcher,
    pub(super) weights: Weights,
    pub(super) capacity: Capacity,
    pub(super) regions: Regions,
    pub(super) memory: Memory,
    slots: Slots,
    pub(super) block: Block,
    /// Parts of calls on their way, in turns.
    pub(super) sides: [Side; 2],
    /// Each has one of the sides.
    pub(super) submitted: Submissions,
    /// A state on its way to the host, or from there.
    state: HostMemory,
    held: DeviceMemory,
    /// Whether launches of a call that did not come to its end may still use the host's memory.
    pub(super) is_unfinished: bool,
}

/// One sequence's part of a call.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) tokens: &'a [u32],
    pub(crate) want: Want,
    pub(crate) reduction: Reduction<'a>,
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
        let side = || Side::new(&launcher, room, (capacity.tokens, rows, sizes.outputs));
        let states = (capacity.slots() * sizes.slot() * size_of::<f32>()) as u64;
        let workspace = (plan.bytes() as u64).saturating_sub(states);
        Ok(Self {
            held: DeviceMemory { weights: weights.bytes(), states, workspace },
            is_unfinished: false,
            sides: [side()?, side()?],
            submitted: Submissions::default(),
            state: launcher.host_memory(sizes.slot() * size_of::<f32>())?,
            block: Block::default(),
            slots: Slots::new(slots),
            launcher,
            weights,
            capacity,
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
        self.settle()?;
        let Sizes { hidden, padded, .. } = self.weights.sizes;
        let slot = self.take()?;
        let bytes = self.weights.sizes.slot() * size_of::<f32>();
        let vectors = self.state.numbers_mut::<f32>().chunks_exact_mut(padded);
        for (vector, numbers) in vectors.zip(values.chunks_exact(hidden)) {
            let (own, padding) = vector.split_at_mut(hidden);
            own.copy_from_slice(numbers);
            padding.fill(0.0);
        }
        // Behind all that was launched: the slot may have been another state's, which a call under way reads.
        let restored = self.memory.write("restore", |memory| {
            // SAFETY: it is a slot of the table, and nobody else has it.
            unsafe { self.launcher.copy_in(&self.state, self.slot(&slot, memory), bytes) }?;
            self.launcher.wait(&self.launcher.mark()?)
        });
        self.heed(restored)?;
        Ok(State(Place::Slot(slot)))
    }

    /// The numbers of a state. Waits for the call that makes it, where that is under way, and for no other.
    pub(crate) fn values(&mut self, state: &State) -> Result<Vec<f32>, ForwardError> {
        self.settle()?;
        let slot = self.own(state)?;
        let Sizes { hidden, padded, .. } = self.weights.sizes;
        let numbers = self.weights.sizes.slot();
        let bytes = numbers * size_of::<f32>();
        let offset = slot.index() as usize * bytes;
        let Self { launcher, regions, memory, state: copy, submitted, .. } = self;
        let made = submitted.makes(&slot);
        let copied = memory.write("values", |memory| {
            let from = regions.slots.at(memory).plus(offset);
            // SAFETY: it is a slot of the table, which nobody writes while somebody has it.
            let copied = unsafe { launcher.copy_out(Lane::States, made, from, copy, bytes) }?;
            launcher.wait(&copied)
        });
        self.heed(copied)?;
        let numbers = &self.state.numbers::<f32>()[..numbers];
        Ok(numbers.chunks_exact(padded).flat_map(|vector| &vector[..hidden]).copied().collect())
    }

    /// Waits for what an error or a panic left behind.
    pub(super) fn settle(&mut self) -> TensorResult<()> {
        if self.is_unfinished {
            let finished = self.launcher.finish();
            self.heed(finished)?;
            self.is_unfinished = false;
        }
        Ok(())
    }

    /// Where waiting fails, it may be for something else that was launched: nothing that is under way can be relied on.
    pub(super) fn heed<T>(&mut self, waited: TensorResult<T>) -> TensorResult<T> {
        if waited.is_err() {
            self.is_unfinished = true;
            self.submitted.lose();
        }
        waited
    }

    pub(super) fn take(&self) -> Result<Slot, ForwardError> {
        self.slots.take().ok_or(ForwardError::NoSlot { slots: self.slots.count() })
    }

    pub(super) fn own(&self, state: &State) -> Result<Slot, ForwardError> {
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
        // Nor may what was submitted write memory that is gone. A device that can't be waited for does nothing any more.
        let _ = self.launcher.finish();
    }
}
