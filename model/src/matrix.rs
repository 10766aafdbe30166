//! Matrices as checked views of slices, and their products.
//!
//! The safe wall around the `gemm` crate, and how a candle storage becomes a slice. Knows nothing about LSTMs.

use std::ops::Range;

use candle_core::{CpuStorage, Layout, Result, Storage, bail};

/// An `[rows, columns]` matrix of f32 over a borrowed slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixView<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixView<'a> {
    /// Rows one after the other.
    pub(crate) fn row_major(values: &'a [f32], rows: usize, columns: usize) -> Result<Self> {
        Self::strided(values, [rows, columns], [columns, 1])
    }

    /// A tensor of rank 2 in memory, whatever its strides.
    pub(crate) fn of_storage(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (rows, columns) = layout.shape().dims2()?;
        let values = &storage.as_slice::<f32>()?[layout.start_offset()..];
        match *layout.stride() {
            [row_stride, column_stride] => {
                Self::strided(values, [rows, columns], [row_stride, column_stride])
            }
            _ => bail!("a matrix has two strides"),
        }
    }

    fn strided(values: &'a [f32], [rows, columns]: [usize; 2], strides: [usize; 2]) -> Result<Self> {
        let [row_stride, column_stride] = strides;
        let reach = |size: usize, stride: usize| size.checked_sub(1)?.checked_mul(stride);
        let last = match (reach(rows, row_stride), reach(columns, column_stride)) {
            (Some(down), Some(right)) => down.checked_add(right),
            _ => bail!("a matrix of {rows} x {columns} with strides {strides:?} is empty or too large"),
        };
        if last.is_none_or(|last| last >= values.len() || last > isize::MAX as usize) {
            bail!("{} values don't hold a matrix of {rows} x {columns}", values.len());
        }
        Ok(Self { values, rows, columns, row_stride, column_stride })
    }

    /// The same values with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some of the columns: a range within `0..columns` that is not empty.
    fn columns_within(self, range: &Range<usize>) -> Self {
        Self { values: &self.values[range.start * self.column_stride..], columns: range.len(), ..self }
    }

    /// Whether the elements of a column lie one after the other.
    pub(crate) fn has_dense_columns(&self) -> bool {
        self.row_stride == 1
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// A copy, row-major, of the transposed matrix. In tiles, so that reads and writes both stay in the cache.
    pub(crate) fn to_transposed(self) -> Vec<f32> {
        const TILE: usize = 32;
        let mut copy = vec![0.0; self.rows * self.columns];
        for row_start in (0..self.rows).step_by(TILE) {
            for column_start in (0..self.columns).step_by(TILE) {
                for column in column_start..self.columns.min(column_start + TILE) {
                    for row in row_start..self.rows.min(row_start + TILE) {
                        let value = self.values[row * self.row_stride + column * self.column_stride];
                        copy[column * self.rows + row] = value;
                    }
                }
            }
        }
        copy
    }
}

/// Multiplications from which on a product is worth waking other threads: some 50 µs of one core's work.
const PARALLEL_FROM: usize = 1 << 21;

/// Sums over more columns of `lhs` are cut into equal parts, each summed from zero: an f32 sum's rounding error grows with
/// its length, and parts of 128 keep a model's logits within 5e-6 of the exact ones. gemm cuts too, at a depth that
/// depends on the other sizes and on the processor's caches, but not so early; here the number of rows has no say.
const DEPTH: usize = 128;

/// `sums += lhs · rhs`, with `sums` `[lhs.rows, rhs.columns]` row-major: the product of inference and of training's
/// forward.
///
/// Large products are spread over rayon's threads. Where `rhs` has dense rows, as weights arranged for inference have,
/// a row's sums are taken in the same order whatever other rows `lhs` has, so they are equal to the bit. That rests on
/// gemm's kernels adding up one element of the product in one order each, as those for x86-64 do.
pub(crate) fn add_product(sums: &mut [f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>) -> Result<()> {
    check_sizes(sums, lhs, rhs)?;
    if lhs.rows == 1 && rhs.column_stride == 1 {
        add_product_of_one_row(sums, lhs, rhs);
    } else {
        add_product_in_parts(sums, lhs, rhs);
    }
    Ok(())
}

/// `product = lhs · rhs`, row-major, its sums in whatever order is fastest: the product of gradients.
pub(crate) fn set_product(product: &mut [f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>) -> Result<()> {
    check_sizes(product, lhs, rhs)?;
    gemm_into(product, lhs, rhs, false);
    Ok(())
}

fn check_sizes(product: &[f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>) -> Result<()> {
    if lhs.columns != rhs.rows || product.len() != lhs.rows * rhs.columns {
        bail!(
            "can't multiply {} x {} with {} x {} into {} values",
            lhs.rows,
            lhs.columns,
            rhs.rows,
            rhs.columns,
            product.len()
        );
    }
    Ok(())
}

/// A single row is multiplied as two equal ones: gemm's kernel for vectors writes the product back to memory for
/// every row of `rhs` and takes three times as long. It also sums in another order than the kernels for batches.
fn add_product_of_one_row(sums: &mut [f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>) {
    let twice = MatrixView { rows: 2, row_stride: 0, ..lhs };
    // With what is there already, and not added to it afterwards: a deep sum is (sum + s1) + s2 in a batch.
    let mut both = sums.repeat(2);
    add_product_in_parts(&mut both, twice, rhs);
    sums.copy_from_slice(&both[..sums.len()]);
}

/// The product of matrices whose sizes fit, in equal parts of the depth.
fn add_product_in_parts(sums: &mut [f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>) {
    let part = lhs.columns.div_ceil(lhs.columns.div_ceil(DEPTH));
    for start in (0..lhs.columns).step_by(part) {
        let depth = start..lhs.columns.min(start + part);
        let rhs = rhs.transposed().columns_within(&depth).transposed();
        gemm_into(sums, lhs.columns_within(&depth), rhs, true);
    }
}

/// The product of matrices whose sizes fit, in place of what `product` holds or added to it.
fn gemm_into(product: &mut [f32], lhs: MatrixView<'_>, rhs: MatrixView<'_>, accumulate: bool) {
    assert_eq!((lhs.columns, product.len()), (rhs.rows, lhs.rows * rhs.columns));
    let parallelism = match product.len().saturating_mul(lhs.columns) {
        ..PARALLEL_FROM => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: every element that gemm reads is inside its slice (checked when the views were made: no size is zero,
    // and the last element is within), every element that it writes is inside `product` (checked above), and
    // `product` is borrowed exclusively, so nothing overlaps it. Strides fit isize, for slices do.
    unsafe {
        gemm::gemm(
            lhs.rows,
            rhs.columns,
            lhs.columns,
            product.as_mut_ptr(),
            1,
            rhs.columns as isize,
            accumulate,
            lhs.values.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.values.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The values of a contiguous f32 tensor in memory.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a contiguous tensor is needed"),
    }
}

/// The storage of a tensor in memory.
pub(crate) fn in_memory(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("a tensor in memory is needed"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn products_of_all_layouts_equal_the_sums_of_the_definition(
            rows in 1usize..20, depth in 1usize..300, columns in 1usize..70,
            lhs_transposed: bool, rhs_transposed: bool,
        ) {
            let (lhs, rhs) = (values(rows * depth, 1), values(depth * columns, 2));
            let view = |values, rows, columns, transposed| match transposed {
                true => MatrixView::row_major(values, columns, rows).map(MatrixView::transposed),
                false => MatrixView::row_major(values, rows, columns),
            };
            let lhs = view(&lhs, rows, depth, lhs_transposed).unwrap();
            let rhs = view(&rhs, depth, columns, rhs_transposed).unwrap();
            let before = values(rows * columns, 3);
            let mut added = before.clone();
            add_product(&mut added, lhs, rhs).unwrap();
            let mut replaced = before.clone();
            set_product(&mut replaced, lhs, rhs).unwrap();
            let at = |view: MatrixView<'_>, row, column| {
                f64::from(view.values[row * view.row_stride + column * view.column_stride])
            };
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 = (0..depth).map(|k| at(lhs, row, k) * at(rhs, k, column)).sum();
                    let index = row * columns + column;
                    prop_assert!((f64::from(replaced[index]) - sum).abs() < 1e-4);
                    prop_assert!((f64::from(added[index]) - sum - f64::from(before[index])).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn a_transposed_copy_holds_the_same_elements(rows in 1usize..80, columns in 1usize..80) {
            let original = values(rows * columns, 4);
            let copy = MatrixView::row_major(&original, rows, columns).unwrap().to_transposed();
            for row in 0..rows {
                for column in 0..columns {
                    prop_assert_eq!(copy[column * rows + row], original[row * columns + column]);
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let values = vec![0.0; 6];
        assert!(MatrixView::row_major(&values, 2, 4).is_err());
        assert!(MatrixView::row_major(&values, 0, 4).is_err());
        assert!(MatrixView::row_major(&values, usize::MAX, 2).is_err());
        let view = MatrixView::row_major(&values, 2, 3).unwrap();
        assert!(set_product(&mut [0.0; 4], view, view).is_err());
        assert!(add_product(&mut [0.0; 4], view, view).is_err());
        assert!(add_product(&mut [0.0; 5], view, view.transposed()).is_err());
    }
}
