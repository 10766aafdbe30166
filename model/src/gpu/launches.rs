//! What every launch of a call needs: weights, and the regions of the memory that it computes in. Which launches those are is
//! elsewhere. Knows nothing about who asks.

use chorus_kernels::{Address, WeightKind};

use super::call::most_words;
use super::launcher::{Launcher, Properties};
use super::memory::{Plan, Region};
use super::weights::{Sizes, Weights};
use crate::capacity::Capacity;

/// Ids of tokens that a part of a call may ask for, at least: one ask for all tokens always fits.
const IDS: usize = 1 << 16;

/// Where everything is that a call computes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Regions {
    /// `[slots][layers][h, c][padded]` f32.
    pub(super) slots: Region,
    pub(super) words: Region,
    /// One for each layer.
    pub(super) counters: Region,
    /// `[tokens][input]`.
    pub(super) embedded: Region,
    /// `[tokens][H][4]` f32.
    pub(super) gates: Region,
    /// `[tokens][padded]`, of a layer and of the one below.
    pub(super) hidden: [Region; 2],
    /// `[layers][batch][padded]`.
    pub(super) before: Region,
    /// `[batch][padded]` f32.
    pub(super) carry: Region,
    /// `[rows][padded]`.
    pub(super) selected: Region,
    /// `[rows][outputs]` f32, of a part and of the one whose rows are being copied.
    pub(super) logits: [Region; 2],
}

/// What launches need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launches<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) properties: Properties,
    pub(super) weights: &'a Weights,
    pub(super) regions: &'a Regions,
    pub(super) memory: Address,
    /// Which of the two logits.
    pub(super) side: usize,
}

impl Regions {
    pub(super) fn plan(sizes: Sizes, kind: WeightKind, capacity: Capacity, rows: usize) -> (Self, Plan) {
        let (tokens, weight, float) = (capacity.tokens, kind.bytes(), size_of::<f32>());
        let mut plan = Plan::default();
        let regions = Self {
            slots: plan.region(capacity.slots() * sizes.slot() * float),
            words: plan.region(most_words(tokens, rows, most_ids(sizes)) * size_of::<u32>()),
            counters: plan.region(sizes.layers * size_of::<u32>()),
            embedded: plan.region(tokens * sizes.input * weight),
            gates: plan.region(tokens * 4 * sizes.hidden * float),
            hidden: [(); 2].map(|()| plan.region(tokens * sizes.padded * weight)),
            before: plan.region(sizes.layers * tokens * sizes.padded * weight),
            carry: plan.region(tokens * sizes.padded * float),
            selected: plan.region(rows * sizes.padded * weight),
            logits: [(); 2].map(|()| plan.region(rows * sizes.outputs * float)),
        };
        (regions, plan)
    }
}

/// Ids that the words of a call have room for.
pub(super) fn most_ids(sizes: Sizes) -> usize {
    IDS.max(sizes.vocabulary)
}
