//! [`Rows`]: rows of logits that one member answered, owned and checked.
//!
//! Knows nothing about the wire or about rules.

use crate::fusion::{Norm, Row, RowError};

/// Rows of one answer, each of `vocabulary_size` finite logits, checked by [`Row::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    logits: Vec<f32>,
    norms: Vec<Norm>,
    vocabulary_size: usize,
}

impl Rows {
    /// Checks `logits` (rows * `vocabulary_size`, row after row) with one norm for each row.
    ///
    /// # Errors
    /// Another number of logits, or what [`Row::new`] refuses.
    pub fn new(logits: Vec<f32>, norms: Vec<Norm>, vocabulary_size: usize) -> Result<Self, RowError> {
        let expected = norms.len() * vocabulary_size;
        if logits.len() != expected || vocabulary_size == 0 {
            return Err(RowError::Length { expected, got: logits.len() });
        }
        for (logits, norm) in logits.chunks_exact(vocabulary_size).zip(&norms) {
            Row::new(logits, *norm, vocabulary_size)?;
        }
        Ok(Self { logits, norms, vocabulary_size })
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
        let logits = self.logits.get(start..start + self.vocabulary_size);
        match (logits, self.norms.get(index)) {
            (Some(logits), Some(norm)) => Ok(Row::checked(logits, *norm)),
            _ => Err(RowError::Length { expected: self.vocabulary_size, got: 0 }),
        }
    }
}
