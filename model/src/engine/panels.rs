//! Weights packed once so that a product reads them from front to back.
//!
//! A panel holds four vectors of columns; within it the columns' weights of one k stand side by side, then those of
//! the next k: `[panel][k][4][lanes]`. In a layer the four vectors are the gates i, f, g, o of the same units, so that a
//! cell is updated on the sums where they are, in registers; in the output layer they are neighbouring tokens. Knows
//! nothing about how products are computed.

use aligned_vec::{AVec, ConstAlign, avec};
use candle_core::{Result, Tensor};

/// Vectors of columns in a panel.
pub(super) const VECTORS: usize = 4;
/// A cache line: no vector that is loaded crosses one.
pub(super) type Aligned<T> = AVec<T, ConstAlign<64>>;

/// Which row of a PyTorch weight `[out, in]` a column of a panel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// `[4H, in]`, gates i, f, g, o: vector g of panel p has gate g of the units from `p * lanes` on.
    Gates {
        /// H.
        hidden_size: usize,
    },
    /// `[count, in]`: columns in order.
    InOrder {
        /// How many.
        count: usize,
    },
}

/// The weights of a product in panels, zero where a panel has columns or depth that the matrix has not.
#[derive(Debug)]
pub(super) struct Panels {
    values: Aligned<f32>,
    /// Numbers in a panel.
    size: usize,
}

impl Columns {
    /// How many panels these columns fill.
    pub(super) fn panels(self, lanes: usize) -> usize {
        match self {
            Self::Gates { hidden_size } => hidden_size.div_ceil(lanes),
            Self::InOrder { count } => count.div_ceil(VECTORS * lanes),
        }
    }

    /// The matrix's row for a lane of a panel's vector; none beyond the matrix.
    pub(super) fn row(self, lanes: usize, panel: usize, vector: usize, lane: usize) -> Option<usize> {
        match self {
            Self::Gates { hidden_size } => {
                let unit = panel * lanes + lane;
                (unit < hidden_size).then_some(vector * hidden_size + unit)
            }
            Self::InOrder { count } => {
                Some((panel * VECTORS + vector) * lanes + lane).filter(|&row| row < count)
            }
        }
    }

    /// Every lane of every panel with its row, in the order of the panels.
    pub(super) fn rows(self, lanes: usize) -> impl Iterator<Item = Option<usize>> {
        let lane = move |index: usize| {
            let (panel, within) = (index / (VECTORS * lanes), index % (VECTORS * lanes));
            self.row(lanes, panel, within / lanes, within % lanes)
        };
        (0..self.panels(lanes) * VECTORS * lanes).map(lane)
    }

    /// A vector with a number for each of the matrix's rows, in the order of the panels; none is all zero.
    pub(super) fn arrange(self, lanes: usize, vector: Option<&Tensor>) -> Result<Vec<f32>> {
        let values = match vector {
            Some(vector) => vector.to_vec1::<f32>()?,
            None => return Ok(vec![0.0; self.panels(lanes) * VECTORS * lanes]),
        };
        Ok(self.rows(lanes).map(|row| row.map_or(0.0, |row| values[row])).collect())
    }
}

/// The depth of a product in whole groups of lanes, as panels and activations have it.
pub(super) fn padded(depth: usize, lanes: usize) -> usize {
    depth.next_multiple_of(lanes)
}

impl Panels {
    /// Packs a weight `[out, in]`.
    pub(super) fn pack(weight: &Tensor, columns: Columns, lanes: usize) -> Result<Self> {
        let (_, depth) = weight.dims2()?;
        let weight = weight.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let width = VECTORS * lanes;
        let size = padded(depth, lanes) * width;
        let mut values: Aligned<f32> = avec!([64]| 0.0; columns.panels(lanes) * size);
        for (column, row) in columns.rows(lanes).enumerate() {
            let Some(row) = row else { continue };
            let (panel, place) = (column / width, column % width);
            let panel = &mut values[panel * size..][..size];
            for (slot, &weight) in
                panel[place..].iter_mut().step_by(width).zip(&weight[row * depth..][..depth])
            {
                *slot = weight;
            }
        }
        Ok(Self { values, size })
    }

    /// `[padded depth][4][lanes]`.
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        &self.values[index * self.size..][..self.size]
    }

    /// Bytes of all weights, the padding included.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}
