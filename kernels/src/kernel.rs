//! The kernels by name. Knows nothing about what they are given.

use std::fmt;

/// Threads of a block of most kernels, at most: [`Kernel::threads`].
pub const THREADS: u32 = 256;
/// Threads of a block of a scan.
pub const SCAN_THREADS: u32 = 512;
/// Threads of a block that finds answers.
pub const ANSWER_THREADS: u32 = 512;
/// Shared memory that such a block needs beside a staged row.
pub const ANSWER_ROOM_BYTES: u32 = 17 * 1024;
/// Says of a source of [`crate::SelectArguments`] that it is a slot.
pub const IS_SLOT: u32 = 1 << 31;

/// In which numbers weights and hidden vectors are kept. Sums and cells are f32 in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightKind {
    /// 32 bits.
    F32,
    /// 8 bits of fraction, the range of f32.
    Bf16,
    /// 11 bits of fraction, at most 65,504.
    F16,
}

/// Rows that a warp multiplies with the weights that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile(u8);

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// The call's own numbers onto the device.
    Begin,
    /// One step of a layer for few rows, products and cells.
    Rows(WeightKind, Tile),
    /// h out of the slots.
    Load(WeightKind),
    /// Embeddings of tokens.
    Embed(WeightKind),
    /// Rows of the first layer's table.
    Tabulate(WeightKind),
    /// The cells of a step.
    Cell(WeightKind),
    /// All steps of a layer.
    Scan(WeightKind, Tile),
    /// Hidden vectors whose logits are wanted.
    Select(WeightKind),
    /// The output layer for few rows.
    Project(WeightKind, Tile),
    /// Norms and whatever is wanted of rows of logits.
    Answers,
}

impl WeightKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl Tile {
    /// The most rows of a tile.
    pub const LARGEST: usize = 16;

    /// The smallest tile that holds so many rows, or the largest one.
    ///
    /// ```
    /// assert_eq!([1, 3, 8, 100].map(|rows| chorus_kernels::Tile::of(rows).rows()), [1, 4, 8, 16]);
    /// ```
    #[must_use]
    pub fn of(rows: usize) -> Self {
        Self([1, 2, 4, 8].into_iter().find(|&tile| rows <= usize::from(tile)).unwrap_or(16))
    }

    /// Its rows.
    #[must_use]
    pub fn rows(self) -> u32 {
        self.0.into()
    }
}

impl Kernel {
    /// The most threads of a block: a kernel whose threads need many registers has fewer.
    #[must_use]
    pub fn threads(self) -> u32 {
        match self {
            Self::Answers => ANSWER_THREADS,
            Self::Scan(..) => SCAN_THREADS,
            Self::Rows(_, Tile(16)) | Self::Project(_, Tile(16)) => THREADS / 2,
            _ => THREADS,
        }
    }

    /// The type of weights that it is for, if it is for one.
    #[must_use]
    pub fn weights(self) -> Option<WeightKind> {
        match self {
            Self::Begin | Self::Answers => None,
            Self::Rows(kind, _)
            | Self::Scan(kind, _)
            | Self::Project(kind, _)
            | Self::Load(kind)
            | Self::Embed(kind)
            | Self::Tabulate(kind)
            | Self::Cell(kind)
            | Self::Select(kind) => Some(kind),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, kind, tile) = match self {
            Self::Begin => return formatter.write_str("begin_call"),
            Self::Answers => return formatter.write_str("find_answers"),
            Self::Rows(kind, tile) => ("lstm_rows", kind, Some(tile)),
            Self::Scan(kind, tile) => ("scan", kind, Some(tile)),
            Self::Project(kind, tile) => ("project", kind, Some(tile)),
            Self::Load(kind) => ("load", kind, None),
            Self::Embed(kind) => ("embed", kind, None),
            Self::Tabulate(kind) => ("tabulate", kind, None),
            Self::Cell(kind) => ("cell", kind, None),
            Self::Select(kind) => ("select", kind, None),
        };
        write!(formatter, "{name}_{}", kind.name())?;
        tile.map_or(Ok(()), |tile| write!(formatter, "_{}", tile.0))
    }
}
