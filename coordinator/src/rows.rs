//! [`Rows`]: rows of logits that one member answered, checked, where the network has put them.
//!
//! Knows nothing about the wire or about rules.

use bytes::Bytes;
use chorus_simd::Values;

use crate::fusion::{Norm, Row, RowError};

/// Rows of one answer, each of `vocabulary_size` finite logits, checked by [`Row::new`]. Cloning shares the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// f32 in the machine's order of bytes, row after row, at any address.
    logits: Bytes,
    norms: Vec<Norm>,
    vocabulary_size: usize,
}

impl Rows {
    /// Checks `logits` (rows * `vocabulary_size` f32 in the machine's order of bytes, row after row, at any address) with one
    /// norm for each row.
    ///
    /// # Errors
    /// Another number of logits, or what [`Row::new`] refuses.
    pub fn new(logits: Bytes, norms: Vec<Norm>, vocabulary_size: usize) -> Result<Self, RowError> {
        let expected = norms.len() * vocabulary_size;
        let (values, rest) = logits.as_chunks::<4>();
        if values.len() != expected || !rest.is_empty() || vocabulary_size == 0 {
            return Err(RowError::Length { expected, got: values.len() });
        }
        for (logits, norm) in values.chunks_exact(vocabulary_size).zip(&norms) {
            Row::new(Values::of_bytes(logits), *norm, vocabulary_size)?;
        }
        Ok(Self { logits, norms, vocabulary_size })
    }

    /// The same of logits that are numbers already; copies them.
    ///
    /// # Errors
    /// As [`Rows::new`].
    pub fn of_values(logits: &[f32], norms: Vec<Norm>, vocabulary_size: usize) -> Result<Self, RowError> {
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_ne_bytes()).collect();
        Self::new(bytes.into(), norms, vocabulary_size)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.norms.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.norms.is_empty()
    }

    /// One row.
    ///
    /// # Errors
    /// There is no such row.
    pub fn row(&self, index: usize) -> Result<Row<'_>, RowError> {
        let start = index * self.vocabulary_size;
        let logits = self.logits.as_chunks::<4>().0.get(start..start + self.vocabulary_size);
        match (logits, self.norms.get(index)) {
            (Some(logits), Some(norm)) => Ok(Row::checked(Values::of_bytes(logits), *norm)),
            _ => Err(RowError::Length { expected: self.vocabulary_size, got: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use chorus_simd::norm;

    use super::*;

    #[test]
    fn rows_stay_where_they_are_at_any_address() {
        let rows = [[0.5_f32, -1.0, 2.0], [7.0, 7.0, -7.0]];
        let norms: Vec<Norm> = rows.iter().map(|row| norm(row)).collect();
        let bytes: Vec<u8> = rows.as_flattened().iter().flat_map(|logit| logit.to_ne_bytes()).collect();
        for offset in 0..4 {
            let message = Bytes::from([&vec![9; offset][..], &bytes].concat());
            let logits = message.slice(offset..);
            let read = Rows::new(logits.clone(), norms.clone(), 3).unwrap();
            assert_eq!(read.logits.as_ptr(), logits.as_ptr());
            assert_eq!(read, Rows::of_values(rows.as_flattened(), norms.clone(), 3).unwrap());
            for (index, row) in rows.iter().enumerate() {
                assert!(read.row(index).unwrap().logits().iter().eq(row.iter().copied()));
            }
            assert!(read.row(2).is_err());
            assert!(Rows::new(message.slice(offset..offset + 23), norms.clone(), 3).is_err());
            assert!(Rows::new(message.slice(offset..offset + 20), norms.clone(), 3).is_err());
        }
    }
}
