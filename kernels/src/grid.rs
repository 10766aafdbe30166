//! How many threads run a kernel. Knows nothing about what they do.

/// Threads of a warp.
pub const WARP: u32 = 32;

/// A grid of blocks of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x and y; at least one each.
    pub blocks: (u32, u32),
    /// Threads of a block: whole warps.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether the blocks wait for each other, so that all of them have to run at the same time.
    pub is_cooperative: bool,
}

impl Grid {
    /// Blocks that don't know of each other, without shared memory.
    #[must_use]
    pub fn new(blocks: (u32, u32), threads: u32) -> Self {
        Self { blocks, threads, shared_bytes: 0, is_cooperative: false }
    }

    /// With shared memory for each block.
    #[must_use]
    pub fn with_shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// All blocks at the same time.
    #[must_use]
    pub fn cooperative(self) -> Self {
        Self { is_cooperative: true, ..self }
    }
}
