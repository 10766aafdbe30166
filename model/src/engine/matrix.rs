//! A packed weight matrix in either precision, and rows of activations in the form that it multiplies.

use candle_core::{Result, Tensor};
use pulp::{Arch, Simd};

use super::int8::{Int8Panels, QuantizedRows};
use super::panels::{Columns, Panels};
use super::product::{Activations, Sums, add_product};
use crate::precision::Precision;

/// A weight `[out, in]` in panels.
#[derive(Debug)]
pub(super) enum Matrix {
    Float(Panels),
    Int8(Int8Panels),
}

/// Rows of activations as a matrix takes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    Float(Activations<'a>),
    Int8(&'a QuantizedRows),
}

impl Matrix {
    pub(super) fn pack(
        weight: &Tensor,
        columns: Columns,
        lanes: usize,
        instructions: Arch,
        precision: Precision,
    ) -> Result<Self> {
        match precision {
            Precision::F32 => Panels::pack(weight, columns, lanes).map(Self::Float),
            Precision::Int8 => Int8Panels::pack(weight, columns, lanes, instructions).map(Self::Int8),
        }
    }

    /// The first `count` rows of activations in the form that this matrix multiplies; `scratch` holds them where that is
    /// another one.
    pub(super) fn rows<'a>(
        &self,
        activations: Activations<'a>,
        count: usize,
        scratch: &'a mut QuantizedRows,
    ) -> Rows<'a> {
        match self {
            Self::Float(_) => Rows::Float(activations),
            Self::Int8(panels) => {
                scratch.fill(activations, count, panels.depth(), panels.instructions());
                Rows::Int8(scratch)
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
            // `rows` made them for this matrix.
            (Self::Float(_), Rows::Int8(_)) | (Self::Int8(_), Rows::Float(_)) => {
                unreachable!("rows in another precision than the matrix")
            }
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Float(panels) => panels.bytes(),
            Self::Int8(panels) => panels.bytes(),
        }
    }
}
