//! A packed weight matrix in any of the forms that are multiplied, and rows of activations in the form that it multiplies.

use candle_core::{Result, Tensor, bail};
use pulp::{Arch, Simd};

use super::blocks::{BlockPanels, BlockRows, Stored};
use super::int8::{Int8Panels, QuantizedRows};
use super::panels::{Columns, Panels};
use super::product::{Activations, Sums, add_product};
use crate::precision::Precision;
use crate::quantization::QuantizedMatrices;

/// A weight `[out, in]` in panels.
#[derive(Debug)]
pub(super) enum Matrix {
    Float(Panels),
    Int8(Int8Panels),
    Blocks(BlockPanels),
}

/// What a network's weights become.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers<'a> {
    /// The tensors in a precision.
    Tensors(Precision),
    /// Blocks, by the tensors' names.
    Blocks(&'a QuantizedMatrices),
}

/// Rows of activations as a matrix takes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    Float(Activations<'a>),
    Int8(&'a QuantizedRows),
    Blocks(&'a BlockRows),
}

/// What holds rows of activations that are multiplied in another form than f32.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    int8: QuantizedRows,
    blocks: BlockRows,
}

impl Matrix {
    /// Packs the weight `[out, in]` of this name.
    pub(super) fn pack(
        name: &str,
        weight: &Tensor,
        columns: Columns,
        lanes: usize,
        instructions: Arch,
        numbers: Numbers<'_>,
    ) -> Result<Self> {
        match numbers {
            Numbers::Tensors(Precision::F32) => Panels::pack(weight, columns, lanes).map(Self::Float),
            Numbers::Tensors(Precision::Int8) => {
                Int8Panels::pack(weight, columns, lanes, instructions).map(Self::Int8)
            }
            Numbers::Tensors(precision @ (Precision::Bf16 | Precision::F16)) => {
                bail!("precision {precision} is for CUDA devices; allowed on cpu are f32 and int8")
            }
            Numbers::Blocks(quantized) => {
                let Some(blocks) = quantized.blocks(name) else { bail!("the matrix {name} is in no blocks") };
                let (rows, (_, depth)) = (blocks?, weight.dims2()?);
                let stored = Stored { rows: &rows, quantization: quantized.quantization, depth };
                BlockPanels::pack(stored, columns, lanes, instructions).map(Self::Blocks)
            }
        }
    }

    /// The first `count` rows of activations in the form that this matrix multiplies; `scratch` holds them where that is
    /// another one.
    pub(super) fn rows<'a>(
        &self,
        activations: Activations<'a>,
        count: usize,
        scratch: &'a mut Scratch,
    ) -> Rows<'a> {
        match self {
            Self::Float(_) => Rows::Float(activations),
            Self::Int8(panels) => {
                scratch.int8.fill(activations, count, panels.depth(), panels.instructions());
                Rows::Int8(&scratch.int8)
            }
            Self::Blocks(panels) => {
                panels.fill(&mut scratch.blocks, activations, count);
                Rows::Blocks(&scratch.blocks)
            }
        }
    }

    /// `sums[row] += rows[first + row] · panel` for as many rows as there are sums.
    #[inline(always)]
    pub(super) fn add_product<S: Simd>(
        &self,
        simd: S,
        sums: &mut [Sums<S>],
        rows: Rows<'_>,
        first: usize,
        panel: usize,
    ) {
        match (self, rows) {
            (Self::Float(panels), Rows::Float(rows)) => {
                add_product(simd, sums, &rows, first, panels.panel(panel));
            }
            (Self::Int8(panels), Rows::Int8(rows)) => panels.add_product::<S>(sums, rows, first, panel),
            (Self::Blocks(panels), Rows::Blocks(rows)) => panels.add_product::<S>(sums, rows, first, panel),
            // `rows` made them for this matrix.
            (Self::Float(_) | Self::Int8(_) | Self::Blocks(_), _) => {
                unreachable!("rows in another form than the matrix")
            }
        }
    }

    /// The row of a matrix in blocks whose columns are in order: the numbers that it stands for.
    pub(super) fn read_row(&self, row: usize, numbers: &mut [f32]) {
        match self {
            Self::Blocks(panels) => panels.read_row(row, numbers),
            // Only an embedding in blocks is read so.
            Self::Float(_) | Self::Int8(_) => unreachable!("a row of a matrix that is in no blocks"),
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Float(panels) => panels.bytes(),
            Self::Int8(panels) => panels.bytes(),
            Self::Blocks(panels) => panels.bytes(),
        }
    }
}
