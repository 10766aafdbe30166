//! Rows of logits as bytes and back, little-endian whatever the machine. Knows nothing about what the numbers mean.

use bytes::Bytes;

use crate::v1::Logits;

/// Why the bytes of a [`Logits`] message are not the rows that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogitsError {
    /// Rows that were asked for.
    pub rows: usize,
    /// Values in a row.
    pub vocabulary_size: usize,
    /// Bytes that came.
    pub bytes: usize,
    /// Log-sum-exps that came.
    pub log_sum_exps: usize,
}

impl std::fmt::Display for LogitsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, vocabulary_size, bytes, log_sum_exps } = self;
        write!(
            f,
            "expected {rows} rows of {vocabulary_size} f32 logits ({} bytes) with as many log-sum-exps, \
             got {bytes} bytes and {log_sum_exps} log-sum-exps",
            rows * vocabulary_size * 4
        )
    }
}

impl std::error::Error for LogitsError {}

/// Packs rows (`values`: rows * vocabulary size, row after row) with one log-sum-exp for each row.
///
/// ```
/// let logits = chorus_proto::logits_from_rows(&[0.5, -1.0, 2.0, 0.0], vec![0.7, 2.1]);
/// assert_eq!(logits.values.len(), 4 * 4);
/// assert_eq!(chorus_proto::logits_to_values(&logits, 2, 2)?, [0.5, -1.0, 2.0, 0.0]);
/// # Ok::<(), chorus_proto::LogitsError>(())
/// ```
pub fn logits_from_rows(values: &[f32], log_sum_exp: Vec<f32>) -> Logits {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    Logits { values: Bytes::from(bytes), log_sum_exp }
}

/// Unpacks the rows of a message: `rows * vocabulary_size` values, row after row.
///
/// # Errors
/// The message holds another number of values or log-sum-exps than `rows` and `vocabulary_size` ask for.
pub fn logits_to_values(
    logits: &Logits,
    rows: usize,
    vocabulary_size: usize,
) -> Result<Vec<f32>, LogitsError> {
    if logits.values.len() != rows * vocabulary_size * 4 || logits.log_sum_exp.len() != rows {
        return Err(LogitsError {
            rows,
            vocabulary_size,
            bytes: logits.values.len(),
            log_sum_exps: logits.log_sum_exp.len(),
        });
    }
    let (values, _) = logits.values.as_chunks::<4>();
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_wire_to_the_bit() {
        let values = [0.0, -0.0, f32::MIN_POSITIVE, -1.5, f32::MAX, 1e-40];
        let logits = logits_from_rows(&values, vec![0.5, 0.25]);
        let back = logits_to_values(&logits, 2, 3).unwrap();
        assert_eq!(values.map(f32::to_bits).to_vec(), back.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }

    #[test]
    fn a_message_of_another_size_says_what_was_expected() {
        let error = logits_to_values(&logits_from_rows(&[0.0; 5], vec![0.0]), 1, 6).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected 1 rows of 6 f32 logits (24 bytes) with as many log-sum-exps, got 20 bytes and 1 log-sum-exps"
        );
    }
}
