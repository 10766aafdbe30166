//! [`Values`]: numbers at any address, as a message brings them. Knows nothing about what they mean.

use std::ops::Range;

use pulp::Simd;

/// f32 in the machine's order of bytes, at any address: rows of logits stay where the network has put them.
///
/// ```
/// use chorus_simd::Values;
///
/// let values = Values::from(&[0.5, -1.0]);
/// assert_eq!((values.len(), values.get(1), values.get(2)), (2, Some(-1.0), None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values<'a>(&'a [[u8; 4]]);

impl<'a, V: AsRef<[f32]> + ?Sized> From<&'a V> for Values<'a> {
    fn from(values: &'a V) -> Self {
        Self(bytemuck::cast_slice(values.as_ref()))
    }
}

impl<'a> Values<'a> {
    /// Numbers by their bytes.
    #[must_use]
    pub fn of_bytes(bytes: &'a [[u8; 4]]) -> Self {
        Self(bytes)
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The value at an index.
    #[must_use]
    pub fn get(self, index: usize) -> Option<f32> {
        self.0.get(index).map(|bytes| f32::from_ne_bytes(*bytes))
    }

    /// All values, in order.
    #[inline(always)]
    pub fn iter(self) -> impl ExactSizeIterator<Item = f32> + Clone + use<'a> {
        self.0.iter().map(|bytes| f32::from_ne_bytes(*bytes))
    }

    /// Those of a range, as far as they are there.
    #[inline(always)]
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        let end = range.end.min(self.0.len());
        Self(self.0.get(range.start.min(end)..end).unwrap_or_default())
    }

    /// The first `vectors` vectors as `[[u8; 4]]` in the length of a vector each, and what comes after them.
    #[inline(always)]
    pub(crate) fn split<S: Simd>(self, vectors: usize) -> (&'a [[u8; 4]], Self) {
        let (whole, rest) = self.0.split_at(vectors.saturating_mul(S::F32_LANES).min(self.0.len()));
        (whole, Self(rest))
    }

    /// The bytes.
    #[inline(always)]
    pub(crate) fn bytes(self) -> &'a [[u8; 4]] {
        self.0
    }
}

/// A vector of exactly as many values as it has lanes.
#[inline(always)]
pub(crate) fn load<S: Simd>(values: &[[u8; 4]]) -> S::f32s {
    bytemuck::pod_read_unaligned(values.as_flattened())
}

/// A last vector that is not full: the lanes beyond the values hold `filling`.
#[inline(always)]
pub(crate) fn load_rest<S: Simd>(values: Values<'_>, filling: f32) -> S::f32s {
    let mut lanes = [filling.to_ne_bytes(); MOST_LANES];
    for (lane, value) in lanes.iter_mut().zip(values.0) {
        *lane = *value;
    }
    load::<S>(lanes.split_at(S::F32_LANES).0)
}

/// No instruction set has vectors of more f32.
const MOST_LANES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_any_address_are_the_values() {
        let numbers: Vec<f32> = (0..100_u8).map(f32::from).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        for offset in 0..4 {
            let shifted = [&vec![0; offset][..], &bytes].concat();
            let values = Values::of_bytes(shifted[offset..].as_chunks().0);
            assert!(values.iter().eq(numbers.iter().copied()));
            assert_eq!(values, Values::from(&numbers));
            assert_eq!(values.part(90..200).iter().collect::<Vec<_>>(), numbers[90..]);
            assert!(values.part(200..300).is_empty() && values.get(100).is_none());
        }
    }
}
