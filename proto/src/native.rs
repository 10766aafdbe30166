//! Rows of logits as f32 in the machine's own order of bytes, without a copy where the wire has them so. Knows nothing about
//! what the numbers mean.

use bytes::{Bytes, BytesMut};
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::logits::{LogitsError, check_size};
use crate::v1::{Logits, RowFormat};

/// The rows of a message as the bytes of f32 in the machine's order: `rows * vocabulary_size` of them, row after row, at any
/// address. f32 rows on a little-endian machine are the message's own bytes; all others are written to `spare`, whose memory
/// is used again once the rows that were written to it before are dropped.
///
/// ```
/// use bytes::BytesMut;
/// use chorus_proto::v1::{Norms, RowFormat};
///
/// let norms = Norms { largest: vec![0.5], log_sum: vec![0.2] };
/// let logits = chorus_proto::logits_from_rows(&[0.5, -1.0], norms);
/// let spare = &mut BytesMut::new();
/// let bytes = chorus_proto::native_rows(&logits, RowFormat::F32, 1, 2, spare)?;
/// assert_eq!(bytes[4..], (-1.0_f32).to_ne_bytes());
/// # Ok::<(), chorus_proto::LogitsError>(())
/// ```
///
/// # Errors
/// The message holds another number of values or norms than `rows` and `vocabulary_size` ask for.
pub fn native_rows(
    logits: &Logits,
    format: RowFormat,
    rows: usize,
    vocabulary_size: usize,
    spare: &mut BytesMut,
) -> Result<Bytes, LogitsError> {
    check_size(logits, format, rows, vocabulary_size)?;
    if format == RowFormat::F32 && cfg!(target_endian = "little") {
        return Ok(logits.values.clone());
    }
    spare.clear();
    spare.reserve(rows * vocabulary_size * size_of::<f32>());
    match format {
        RowFormat::F32 => put(spare, &logits.values, |bytes, values| {
            for (value, bytes) in values.iter_mut().zip(bytes) {
                *value = f32::from_le_bytes(*bytes);
            }
        }),
        RowFormat::F16 => put(spare, &logits.values, |bytes, values| {
            let mut narrow = [f16::ZERO; PART];
            for (narrow, bytes) in narrow.iter_mut().zip(bytes) {
                *narrow = f16::from_le_bytes(*bytes);
            }
            narrow.convert_to_f32_slice(values);
        }),
        RowFormat::Bf16 => put(spare, &logits.values, |bytes, values| {
            for (value, bytes) in values.iter_mut().zip(bytes) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }),
    }
    Ok(spare.split().freeze())
}

/// Values that are read at once.
const PART: usize = 256;

/// Appends the f32 that `read` makes of values of so many bytes each.
fn put<const BYTES: usize>(
    spare: &mut BytesMut,
    bytes: &[u8],
    read: impl Fn(&[[u8; BYTES]], &mut [f32; PART]),
) {
    let mut values = [0.0; PART];
    let mut wide = [[0; size_of::<f32>()]; PART];
    for part in bytes.as_chunks::<BYTES>().0.chunks(PART) {
        read(part, &mut values);
        for (wide, value) in wide.iter_mut().zip(&values) {
            *wide = value.to_ne_bytes();
        }
        spare.extend_from_slice(wide.split_at(part.len()).0.as_flattened());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Norms;
    use crate::{put_values, values_of};

    const FORMATS: [RowFormat; 3] = [RowFormat::F32, RowFormat::F16, RowFormat::Bf16];

    fn message(values: &[f32], rows: usize, format: RowFormat) -> Logits {
        let mut bytes = Vec::new();
        put_values(&mut bytes, values.iter().copied(), format);
        let norms = Norms { largest: vec![0.0; rows], log_sum: vec![0.5; rows] };
        Logits { values: bytes.into(), norms: Some(norms) }
    }

    #[test]
    fn every_format_gives_its_values_to_the_bit() {
        let values: Vec<f32> = (0..3 * 211_u16).map(|step| f32::from(step) * -0.37 - 1e-9).collect();
        for format in FORMATS {
            let logits = message(&values, 3, format);
            let native = native_rows(&logits, format, 3, 211, &mut BytesMut::new()).unwrap();
            let read = native.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes).to_bits());
            assert!(read.eq(values_of(&logits.values, format).iter().map(|value| value.to_bits())));
            assert!(native_rows(&logits, format, 3, 210, &mut BytesMut::new()).is_err());
            assert!(native_rows(&logits, format, 2, 211, &mut BytesMut::new()).is_err());
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn f32_rows_are_the_message_s_own_bytes() {
        let logits = message(&[1.0, 2.0], 1, RowFormat::F32);
        let native = native_rows(&logits, RowFormat::F32, 1, 2, &mut BytesMut::new()).unwrap();
        assert_eq!(native.as_ptr(), logits.values.as_ptr());
    }

    #[test]
    fn the_memory_of_rows_that_are_gone_is_used_again_and_that_of_others_is_not_touched() {
        let mut spare = BytesMut::new();
        let mut widened = |value: f32| {
            let logits = message(&[value; 1000], 1, RowFormat::F16);
            native_rows(&logits, RowFormat::F16, 1, 1000, &mut spare).unwrap()
        };
        let first = widened(1.0);
        let place = first.as_ptr();
        drop(first);
        let second = widened(2.0);
        assert_eq!(second.as_ptr(), place);
        let third = widened(3.0);
        assert_eq!(second[..4], 2_f32.to_ne_bytes());
        assert_eq!(third[..4], 3_f32.to_ne_bytes());
    }
}
