//! Rows of logits as bytes and back, little-endian whatever the machine. Knows nothing about what the numbers mean.

use bytes::Bytes;
use half::{bf16, f16};

use crate::v1::{Logits, Norms, RowFormat};

/// Why the bytes of a [`Logits`] message are not the rows that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogitsError {
    /// Rows that were asked for.
    pub rows: usize,
    /// Values in a row.
    pub vocabulary_size: usize,
    /// In which format.
    pub format: RowFormat,
    /// Bytes that came.
    pub bytes: usize,
    /// Norms that came; none where their two halves have different lengths.
    pub norms: Option<usize>,
}

impl std::fmt::Display for LogitsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, vocabulary_size, format, bytes, norms } = self;
        let size = rows * vocabulary_size * value_bytes(*format);
        write!(
            f,
            "expected {rows} rows of {vocabulary_size} logits ({size} bytes) with as many norms, got {bytes} bytes and "
        )?;
        match norms {
            Some(norms) => write!(f, "{norms} norms"),
            None => f.write_str("halves of norms"),
        }
    }
}

impl std::error::Error for LogitsError {}

impl Norms {
    /// Appends the norm of one more row.
    pub fn push(&mut self, largest: f32, log_sum: f64) {
        self.largest.push(largest);
        self.log_sum.push(log_sum);
    }

    /// How many norms there are; none where their halves have different lengths.
    pub fn count(&self) -> Option<usize> {
        (self.largest.len() == self.log_sum.len()).then_some(self.largest.len())
    }

    /// The norms of the rows: (largest, log_sum).
    pub fn iter(&self) -> impl Iterator<Item = (f32, f64)> {
        self.largest.iter().copied().zip(self.log_sum.iter().copied())
    }
}

/// Bytes of one value.
pub fn value_bytes(format: RowFormat) -> usize {
    match format {
        RowFormat::F32 => 4,
        RowFormat::F16 | RowFormat::Bf16 => 2,
    }
}

/// What is left of a value in a format. What is below -65504 stays at that in f16.
///
/// ```
/// use chorus_proto::{rounded, v1::RowFormat};
///
/// assert_eq!(rounded(-0.1, RowFormat::F32), -0.1);
/// assert!((rounded(-0.1, RowFormat::F16) + 0.1).abs() < 0.1 / 2048.0);
/// assert_eq!(rounded(-1e9, RowFormat::F16), -65504.0);
/// ```
pub fn rounded(value: f32, format: RowFormat) -> f32 {
    match format {
        RowFormat::F32 => value,
        RowFormat::F16 => f16::from_f32(value.max(f16::MIN.to_f32())).to_f32(),
        // The least finite f32 would round to minus infinity.
        RowFormat::Bf16 => bf16::from_f32(value.max(bf16::MIN.to_f32())).to_f32(),
    }
}

/// Appends values in a format, each [`rounded`] to it.
pub fn put_values(bytes: &mut Vec<u8>, values: impl ExactSizeIterator<Item = f32>, format: RowFormat) {
    let start = bytes.len();
    bytes.resize(start + values.len() * value_bytes(format), 0);
    let room = bytes.get_mut(start..).unwrap_or_default();
    match format {
        RowFormat::F32 => {
            for (bytes, value) in room.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        RowFormat::F16 => {
            for (bytes, value) in room.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = f16::from_f32(value.max(f16::MIN.to_f32())).to_le_bytes();
            }
        }
        RowFormat::Bf16 => {
            for (bytes, value) in room.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(value.max(bf16::MIN.to_f32())).to_le_bytes();
            }
        }
    }
}

/// The values in bytes of a format. Bytes beyond the last whole value are left out.
///
/// ```
/// use chorus_proto::{put_values, v1::RowFormat, values_of};
///
/// let mut bytes = Vec::new();
/// put_values(&mut bytes, [0.5, -1.0].into_iter(), RowFormat::F32);
/// assert_eq!(values_of(&bytes, RowFormat::F32), [0.5, -1.0]);
/// ```
pub fn values_of(bytes: &[u8], format: RowFormat) -> Vec<f32> {
    match format {
        RowFormat::F32 => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        RowFormat::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        RowFormat::Bf16 => {
            bytes.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
        }
    }
}

/// Packs f32 rows (`values`: rows * vocabulary size, row after row) with one norm for each row.
///
/// ```
/// use chorus_proto::v1::{Norms, RowFormat};
///
/// let norms = Norms { largest: vec![0.5, 2.0], log_sum: vec![0.2, 0.1] };
/// let logits = chorus_proto::logits_from_rows(&[0.5, -1.0, 2.0, 0.0], norms);
/// assert_eq!(logits.values.len(), 4 * 4);
/// assert_eq!(chorus_proto::logits_to_values(&logits, RowFormat::F32, 2, 2)?, [0.5, -1.0, 2.0, 0.0]);
/// # Ok::<(), chorus_proto::LogitsError>(())
/// ```
pub fn logits_from_rows(values: &[f32], norms: Norms) -> Logits {
    let mut bytes = Vec::new();
    put_values(&mut bytes, values.iter().copied(), RowFormat::F32);
    Logits { values: Bytes::from(bytes), norms: Some(norms) }
}

/// Unpacks the rows of a message: `rows * vocabulary_size` values, row after row.
///
/// # Errors
/// The message holds another number of values or norms than `rows` and `vocabulary_size` ask for.
pub fn logits_to_values(
    logits: &Logits,
    format: RowFormat,
    rows: usize,
    vocabulary_size: usize,
) -> Result<Vec<f32>, LogitsError> {
    check_size(logits, format, rows, vocabulary_size)?;
    Ok(values_of(&logits.values, format))
}

/// Checks that a message holds as many values and norms as were asked for.
pub(crate) fn check_size(
    logits: &Logits,
    format: RowFormat,
    rows: usize,
    vocabulary_size: usize,
) -> Result<(), LogitsError> {
    let norms = logits.norms.as_ref().map_or(Some(0), Norms::count);
    let bytes = logits.values.len();
    if bytes != rows * vocabulary_size * value_bytes(format) || norms != Some(rows) {
        return Err(LogitsError { rows, vocabulary_size, format, bytes, norms });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norms(count: usize) -> Norms {
        Norms { largest: vec![0.0; count], log_sum: vec![0.5; count] }
    }

    #[test]
    fn rows_survive_the_wire_to_the_bit() {
        let values = [0.0, -0.0, f32::MIN_POSITIVE, -1.5, f32::MAX, 1e-40];
        let logits = logits_from_rows(&values, norms(2));
        let back = logits_to_values(&logits, RowFormat::F32, 2, 3).unwrap();
        assert_eq!(values.map(f32::to_bits).to_vec(), back.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_narrow_format_rounds_travels_as_it_was_rounded() {
        let values = [0.0, -1e-9, -0.3, -7.77, -65504.0, -1e30, f32::MIN];
        for (format, unit) in [(RowFormat::F16, 1.0 / 2048.0), (RowFormat::Bf16, 1.0 / 256.0)] {
            let mut bytes = Vec::new();
            put_values(&mut bytes, values.into_iter(), format);
            assert_eq!(bytes.len(), 2 * values.len());
            assert_eq!(values_of(&bytes, format), values.map(|value| rounded(value, format)));
            for value in [-0.3, -7.77, -1234.5] {
                assert!((rounded(value, format) - value).abs() <= -value * unit, "{value} in {format:?}");
            }
            assert!(values.iter().all(|value| rounded(*value, format).is_finite()));
        }
    }

    #[test]
    fn a_message_of_another_size_says_what_was_expected() {
        let read = |logits: &Logits| logits_to_values(logits, RowFormat::F32, 1, 6).unwrap_err().to_string();
        let expected = "expected 1 rows of 6 logits (24 bytes) with as many norms, got";
        let logits = logits_from_rows(&[0.0; 5], norms(1));
        assert_eq!(read(&logits), format!("{expected} 20 bytes and 1 norms"));
        let torn = Norms { largest: vec![], ..norms(1) };
        assert_eq!(
            read(&logits_from_rows(&[0.0; 6], torn)),
            format!("{expected} 24 bytes and halves of norms")
        );
        let without = Logits { norms: None, ..logits };
        assert_eq!(read(&without), format!("{expected} 20 bytes and 0 norms"));
    }
}
