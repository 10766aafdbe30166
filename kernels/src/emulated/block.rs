//! Blocks that run side by side: whoever can go on does, and whoever waits goes on when those whom it waits for are there.
//! Knows nothing about kernels.

use super::{
    EmulationError,
    thread::{Identity, Index, Thread, Wait},
};
use crate::Grid;

const WARP: usize = crate::WARP as usize;
/// So often in a row may every thread that can go on only wait for another one's write.
const PATIENCE: usize = 10_000;

/// Blocks of one launch, and what each has for itself.
pub(super) struct Blocks {
    grid: Grid,
    blocks: Vec<Block>,
}

struct Block {
    place: (u32, u32),
    threads: Vec<Thread>,
    /// Aligned to 16 bytes.
    shared: Vec<u128>,
    lanes: Vec<u64>,
}

impl Blocks {
    pub(super) fn new(grid: Grid, places: Vec<(u32, u32)>) -> Self {
        let shared = (grid.shared_bytes as usize).div_ceil(size_of::<u128>());
        let block = |place| Block {
            place,
            threads: Vec::new(),
            // What stands in shared memory at first is anything; NaN shows whoever reads it.
            shared: vec![u128::MAX; shared],
            lanes: vec![0; grid.threads as usize],
        };
        Self { grid, blocks: places.into_iter().map(block).collect() }
    }

    /// Runs every thread of every block to its end.
    pub(super) fn run(mut self, body: &dyn Fn()) -> Result<(), EmulationError> {
        // SAFETY: no thread is resumed after this call, and those that have not ended by then are forgotten.
        let body = unsafe { std::mem::transmute::<&dyn Fn(), &'static dyn Fn()>(body) };
        for block in &mut self.blocks {
            block.begin(self.grid, body)?;
        }
        let mut pauses = 0;
        loop {
            let mut over = true;
            let mut progress = false;
            for block in &mut self.blocks {
                progress |= block.pass();
                over &= block.is_over();
            }
            if over {
                return Ok(());
            }
            pauses = if progress { 0 } else { pauses + 1 };
            let in_vain = |block: &&Block| !block.is_over() && (block.is_stuck() || pauses > PATIENCE);
            if let Some(block) = self.blocks.iter().find(in_vain) {
                let error = EmulationError::Deadlock { block: block.place, waiting: block.waiting() };
                self.blocks.iter_mut().flat_map(|block| &mut block.threads).for_each(Thread::forget);
                return Err(error);
            }
        }
    }
}

impl Block {
    fn begin(&mut self, grid: Grid, body: &'static dyn Fn()) -> Result<(), EmulationError> {
        for number in 0..grid.threads {
            let warp = number as usize / WARP * WARP;
            let identity = Identity {
                thread: Index { x: number, y: 0, z: 0 },
                block: Index { x: self.place.0, y: self.place.1, z: 0 },
                block_size: Index { x: grid.threads, y: 1, z: 1 },
                grid_size: Index { x: grid.blocks.0, y: grid.blocks.1, z: 1 },
                shared: self.shared.as_mut_ptr(),
                lanes: self.lanes[warp..].as_mut_ptr(),
            };
            let thread = Thread::new(identity, body).map_err(|error| EmulationError::Deadlock {
                block: self.place,
                waiting: format!("no stack for thread {number}: {error}"),
            })?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Runs whoever is ready, and makes ready whoever waited for nothing else. Whether anything but a pause came of it.
    fn pass(&mut self) -> bool {
        let mut progress = false;
        for warp in self.threads.chunks_mut(WARP) {
            // A warp goes on by itself while its lanes wait for each other only.
            loop {
                for thread in warp.iter_mut().filter(|thread| thread.wait == Wait::Ready) {
                    thread.resume();
                    progress |= thread.wait != Wait::Pause;
                }
                if !warp.iter().all(|thread| thread.wait == Wait::Lanes) {
                    break;
                }
                warp.iter_mut().for_each(|thread| thread.wait = Wait::Ready);
            }
        }
        for thread in self.threads.iter_mut().filter(|thread| thread.wait == Wait::Pause) {
            thread.wait = Wait::Ready;
        }
        let mut waiting = self.threads.iter().filter(|thread| thread.wait != Wait::Over).peekable();
        if waiting.peek().is_some() && waiting.all(|thread| thread.wait == Wait::Block) {
            let waiting = self.threads.iter_mut().filter(|thread| thread.wait == Wait::Block);
            waiting.for_each(|thread| thread.wait = Wait::Ready);
            return true;
        }
        progress
    }

    fn is_over(&self) -> bool {
        self.threads.iter().all(|thread| thread.wait == Wait::Over)
    }

    /// Nobody can go on.
    fn is_stuck(&self) -> bool {
        !self.threads.iter().any(|thread| thread.wait == Wait::Ready)
    }

    fn waiting(&self) -> String {
        let threads = self.threads.iter().enumerate().filter(|(_, thread)| thread.wait != Wait::Over).take(4);
        let each = threads.map(|(number, thread)| format!("thread {number} for {:?}", thread.wait));
        each.collect::<Vec<_>>().join(", ")
    }
}
