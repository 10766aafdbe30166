//! Searches in long slices: the largest value, and the values that are of interest. Plain loops over short blocks, which
//! the compiler vectorises; only a block that holds what is looked for is read number by number.

use pulp::{Simd, WithSimd};

use crate::instructions;
use crate::values::{Values, load};

/// Values that are looked at together.
const BLOCK: usize = 64;

/// The largest value; not finite if any value is not, and minus infinity where there is none.
///
/// ```
/// assert_eq!(chorus_simd::largest(&[1.0, 3.0, 2.0]), 3.0);
/// assert!(!chorus_simd::largest(&[1.0, f32::NEG_INFINITY]).is_finite());
/// ```
#[must_use]
pub fn largest<'a>(values: impl Into<Values<'a>>) -> f32 {
    instructions().dispatch(Largest(values.into()))
}

/// The first place, from `start` on, whose value is above `bound`.
///
/// ```
/// let values = [0.5, 2.0, 3.0];
/// assert_eq!(chorus_simd::find_above(&values, 0, 0.5), Some(1));
/// assert_eq!(chorus_simd::find_above(&values, 2, 3.0), None);
/// ```
#[must_use]
pub fn find_above<'a>(values: impl Into<Values<'a>>, start: usize, bound: f32) -> Option<usize> {
    let values = values.into();
    let rest = values.part(start..values.len());
    instructions().dispatch(FindAbove(rest, bound)).map(|place| start + place)
}

/// The first place, from `start` on, whose count is above `count`, or equal to it while its value is above `bound`.
#[must_use]
pub fn find_ahead(counts: &[u32], values: &[f32], start: usize, count: u32, bound: f32) -> Option<usize> {
    let (counts, values) = (counts.get(start..)?, values.get(start..)?);
    instructions().dispatch(FindAhead { counts, values, count, bound }).map(|place| start + place)
}

/// Visits every value that is at least `low` and at most `high`, with its place, in order.
///
/// ```
/// let mut places = Vec::new();
/// let values = [0.5, 2.0, 3.0, 0.75];
/// chorus_simd::for_each_within(&values, 0.75, 2.0, |place, _| places.push(place));
/// assert_eq!(places, [1, 3]);
/// ```
pub fn for_each_within<'a>(
    values: impl Into<Values<'a>>,
    low: f32,
    high: f32,
    visit: impl FnMut(usize, f32),
) {
    instructions().dispatch(ForEachWithin { values: values.into(), low, high, visit });
}

struct Largest<'a>(Values<'a>);

impl WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        largest_of(simd, self.0)
    }
}

#[inline(always)]
pub(crate) fn largest_of<S: Simd>(simd: S, values: Values<'_>) -> f32 {
    let mut high = [simd.splat_f32s(f32::NEG_INFINITY); 4];
    // 0 x is zero, and NaN where x is not finite: NaN stays in a sum, which maxima need not keep.
    let mut off = [simd.splat_f32s(0.0); 4];
    let zero = simd.splat_f32s(0.0);
    let mut quads = values.bytes().chunks_exact(4 * S::F32_LANES);
    for quad in &mut quads {
        for (place, vector) in quad.chunks_exact(S::F32_LANES).enumerate() {
            let vector = load::<S>(vector);
            high[place] = simd.max_f32s(high[place], vector);
            off[place] = simd.mul_add_e_f32s(vector, zero, off[place]);
        }
    }
    let [a, b, c, d] = high;
    let mut largest = simd.reduce_max_f32s(simd.max_f32s(simd.max_f32s(a, b), simd.max_f32s(c, d)));
    let [a, b, c, d] = off;
    let mut off = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
    for value in Values::of_bytes(quads.remainder()).iter() {
        largest = largest.max(value);
        off += value * 0.0;
    }
    largest + off
}

struct FindAbove<'a>(Values<'a>, f32);

impl WithSimd for FindAbove<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<usize> {
        let Self(values, bound) = self;
        let is_above = |value: &[u8; 4]| f32::from_ne_bytes(*value) > bound;
        let (blocks, rest) = values.bytes().as_chunks::<BLOCK>();
        for (index, block) in blocks.iter().enumerate() {
            if block.iter().fold(false, |found, value| found | is_above(value)) {
                return block.iter().position(is_above).map(|place| index * BLOCK + place);
            }
        }
        rest.iter().position(is_above).map(|place| blocks.len() * BLOCK + place)
    }
}

struct ForEachWithin<'a, F> {
    values: Values<'a>,
    low: f32,
    high: f32,
    visit: F,
}

impl<F: FnMut(usize, f32)> WithSimd for ForEachWithin<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let (low, high) = (self.low, self.high);
        let is_within = |value: f32| (value >= low) & (value <= high);
        for (index, block) in self.values.bytes().chunks(BLOCK).enumerate() {
            let values = Values::of_bytes(block).iter();
            if values.clone().fold(false, |found, value| found | is_within(value)) {
                for (place, value) in values.enumerate().filter(|(_, value)| is_within(*value)) {
                    (self.visit)(index * BLOCK + place, value);
                }
            }
        }
    }
}

struct FindAhead<'a> {
    counts: &'a [u32],
    values: &'a [f32],
    count: u32,
    bound: f32,
}

impl WithSimd for FindAhead<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<usize> {
        let Self { counts, values, count, bound } = self;
        let is_ahead = |(own, value): (&u32, &f32)| (*own > count) | ((*own == count) & (*value > bound));
        let blocks = counts.chunks(BLOCK).zip(values.chunks(BLOCK));
        for (index, (counts, values)) in blocks.enumerate() {
            let pairs = || counts.iter().zip(values);
            if pairs().fold(false, |found, pair| found | is_ahead(pair)) {
                return pairs().position(is_ahead).map(|place| index * BLOCK + place);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_place_is_found_on_every_instruction_set(
            values in prop::collection::vec((-3_i8..3).prop_map(f32::from), 0..300),
            bound in (-4_i8..4).prop_map(f32::from), start in 0..300_usize, count in 0..4_u32,
        ) {
            let counts: Vec<u32> = values.iter().map(|value| (value.abs() as u32) % 3).collect();
            let above = (start..values.len()).find(|place| values[*place] > bound);
            prop_assert_eq!(find_above(&values, start, bound), above);
            let is_ahead = |place: &usize| (counts[*place], values[*place]) > (count, bound);
            let ahead = (start..values.len()).find(is_ahead);
            prop_assert_eq!(find_ahead(&counts, &values, start, count, bound), ahead);
            for instructions in crate::all_instructions() {
                let found = instructions.dispatch(FindAbove(Values::from(&values), bound));
                prop_assert_eq!(found, values.iter().position(|value| *value > bound));
                let whole = FindAhead { counts: &counts, values: &values, count, bound };
                prop_assert_eq!(instructions.dispatch(whole), (0..values.len()).find(is_ahead));
                let mut within = Vec::new();
                let visit = |place, value| within.push((place, value));
                let (low, high) = (bound, bound + 2.0);
                instructions.dispatch(ForEachWithin { values: Values::from(&values), low, high, visit });
                let expected = values.iter().copied().enumerate();
                let expected = expected.filter(|(_, value)| (low..=high).contains(value));
                prop_assert_eq!(within, expected.collect::<Vec<_>>());
                let largest = instructions.dispatch(Largest(Values::from(&values)));
                prop_assert_eq!(largest, values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }

        #[test]
        fn the_largest_is_finite_only_where_everything_is(length in 1_usize..300, place in 0_usize..300) {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; length];
                values[place % length] = value;
                for instructions in crate::all_instructions() {
                    let largest = instructions.dispatch(Largest(Values::from(&values)));
                    prop_assert!(!largest.is_finite(), "{:?}: {}", instructions, largest);
                }
            }
        }
    }
}
