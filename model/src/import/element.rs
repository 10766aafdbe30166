//! The numbers of a tensor as bytes, turned into 32-bit floats. Knows nothing about files.

use half::{bf16, f16};

/// The type of a tensor's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    /// Whole numbers, booleans, 8-bit floats: nothing that weights are stored in here.
    Other(String),
}

impl Element {
    /// Bytes of one number; none for types that are not read.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::BF16 => Some(2),
            Self::Other(_) => None,
        }
    }

    /// The numbers of little-endian bytes, rounded to 32 bits; none for types that are not read.
    pub(super) fn to_f32(&self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            // Rounding from 64 bits to 32 is the conversion that is asked for.
            Self::F64 => Some(decode(bytes, |number| f64::from_le_bytes(number) as f32)),
            Self::F32 => Some(decode(bytes, f32::from_le_bytes)),
            Self::F16 => Some(decode(bytes, |number| f16::from_le_bytes(number).to_f32())),
            Self::BF16 => Some(decode(bytes, |number| bf16::from_le_bytes(number).to_f32())),
            Self::Other(_) => None,
        }
    }
}

fn decode<const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<SIZE>();
    numbers.iter().map(|bytes| number(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_its_own_bytes() {
        let numbers = [1.5_f32, -0.25];
        let bytes =
            |encode: fn(f32) -> Vec<u8>| numbers.iter().copied().flat_map(encode).collect::<Vec<u8>>();
        let cases = [
            (Element::F64, bytes(|number| f64::from(number).to_le_bytes().to_vec())),
            (Element::F32, bytes(|number| number.to_le_bytes().to_vec())),
            (Element::F16, bytes(|number| f16::from_f32(number).to_le_bytes().to_vec())),
            (Element::BF16, bytes(|number| bf16::from_f32(number).to_le_bytes().to_vec())),
        ];
        for (element, bytes) in cases {
            assert_eq!(element.size(), Some(bytes.len() / 2));
            assert_eq!(element.to_f32(&bytes).as_deref(), Some(&numbers[..]), "{element:?}");
        }
        assert_eq!(Element::Other("I64".to_owned()).to_f32(&[0; 8]), None);
    }
}
