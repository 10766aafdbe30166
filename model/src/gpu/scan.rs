//! All steps of a layer in one launch: what its blocks have, and the launch. Knows nothing about which texts are fed this way.

use candle_core::Result;
use chorus_kernels::{Address, Grid, Kernel, SCAN_THREADS, ScanArguments, Tile, WARP, WeightKind};

use super::launcher::Properties;
use super::launches::Launches;
use super::recurrence::BlockPlaces;
use super::weights::{Layer, Sizes};
use crate::packing::Packing;

/// The most sequences of a scan.
const MOST_SEQUENCES: usize = 8;
/// What a warp reads at a time.
const WARP_BYTES: usize = 16 * WARP as usize;

/// What the blocks of a scan have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScanShape {
    tile: Tile,
    /// Of each block.
    units: usize,
    /// Of a unit's depth, for a warp each.
    parts: usize,
    /// Units whose weights stay in shared memory.
    kept: usize,
    grid: Grid,
}

impl ScanShape {
    /// How a block is scanned: more than one step of few sequences, with a thread for each of their cells, whose hidden vectors
    /// fit into shared memory. None where it is not.
    pub(super) fn of(
        sizes: Sizes,
        kind: WeightKind,
        properties: Properties,
        packing: &Packing,
    ) -> Option<Self> {
        if packing.steps() < 2 || packing.batch() > MOST_SEQUENCES {
            return None;
        }
        let (threads, warps) = (SCAN_THREADS as usize, (SCAN_THREADS / WARP) as usize);
        let tile = Tile::of(packing.batch());
        let rows = tile.rows() as usize;
        // One block for each multiprocessor, so that all of them run.
        let units = sizes.hidden.div_ceil(properties.multiprocessors.max(1) as usize);
        if units * rows > threads {
            return None;
        }
        let row_bytes = sizes.padded * kind.bytes();
        // As many as there are warps for, and no shorter than what a warp reads at a time.
        let parts = (warps / units).min(row_bytes.div_ceil(WARP_BYTES)).max(1);
        let needed = rows * row_bytes + units * parts * rows * 4 * size_of::<f32>();
        let rest = (properties.shared_bytes as usize).checked_sub(needed)?;
        let kept = (rest / (4 * row_bytes)).min(units);
        let shared = needed + kept * 4 * row_bytes;
        let blocks = sizes.hidden.div_ceil(units) as u32;
        let grid = Grid::new((blocks, 1), (units * parts).min(warps) as u32 * WARP);
        Some(Self { tile, units, parts, kept, grid: grid.cooperative().with_shared(shared as u32) })
    }
}

impl Launches<'_> {
    /// All steps of a layer in one launch, whose blocks wait for each other between them.
    pub(super) fn scan(
        &self,
        index: usize,
        layer: &Layer,
        is_projected: bool,
        (packing, shape): (&Packing, ScanShape),
        places: BlockPlaces,
    ) -> Result<()> {
        let (sizes, ScanShape { tile, units, parts, kept, grid }) = (self.weights.sizes, shape);
        let arguments = ScanArguments {
            weights: layer.recurrent.numbers.address(),
            projected: if is_projected { self.regions.gates.at(self.memory) } else { Address::NONE },
            table: self.table(is_projected),
            bias: layer.bias.as_ref().map_or(Address::NONE, |bias| bias.address()),
            slots: self.regions.slots.at(self.memory),
            tokens: self.of_call(places.tokens),
            from: self.of_call(places.from),
            to: self.of_call(places.to),
            offsets: self.of_call(places.offsets),
            before: self.hidden_before(index, packing, 0),
            after: self.hidden(index),
            counter: self.regions.counters.at(self.memory).plus(index * size_of::<u32>()),
            steps: packing.steps() as u32,
            hidden: sizes.hidden as u32,
            padded: sizes.padded as u32,
            slot_numbers: sizes.slot() as u32,
            layer: index as u32,
            units: units as u32,
            kept: kept as u32,
            parts: parts as u32,
        };
        // SAFETY: as above.
        unsafe { self.launcher.launch(Kernel::Scan(self.weights.kind, tile), grid, &arguments) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an H100 or H200.
    const HOPPER: Properties =
        Properties { multiprocessors: 132, shared_bytes: 227 << 10, cache_bytes: 50 << 20 };

    fn shape(hidden: usize, kind: WeightKind, sequences: usize) -> Option<ScanShape> {
        let padded = hidden.next_multiple_of(8);
        let sizes = Sizes { vocabulary: 10, outputs: 12, hidden, padded, layers: 1, input: 0 };
        ScanShape::of(sizes, kind, HOPPER, &Packing::rectangle(2, sequences))
    }

    #[test]
    fn weights_are_kept_as_far_as_shared_memory_goes() {
        let found = |hidden, kind, sequences| {
            let ScanShape { units, parts, kept, grid, .. } = shape(hidden, kind, sequences)?;
            assert!(grid.shared_bytes <= HOPPER.shared_bytes && grid.blocks.0 <= HOPPER.multiprocessors);
            Some((units, parts, kept, grid.threads))
        };
        // Of 650 units a block has 5, each in three parts: 15 of 16 warps are at work.
        assert_eq!(found(650, WeightKind::F32, 1), Some((5, 3, 5, 480)));
        assert_eq!(found(1500, WeightKind::F32, 1), Some((12, 1, 9, 384)));
        assert_eq!(found(1500, WeightKind::F32, 8), Some((12, 1, 7, 384)));
        assert_eq!(found(1500, WeightKind::Bf16, 8), Some((12, 1, 12, 384)));
        assert_eq!(found(32, WeightKind::Bf16, 3), Some((1, 1, 1, 32)));
    }

    #[test]
    fn what_has_no_room_is_not_scanned() {
        assert!(shape(650, WeightKind::F32, 9).is_none(), "too many sequences");
        assert!(shape(8192, WeightKind::F32, 8).is_none(), "their hidden vectors alone take 256 KiB");
        assert!(
            shape(12_000, WeightKind::Bf16, 8).is_none(),
            "91 units of 8 sequences are more than 512 threads"
        );
    }
}
