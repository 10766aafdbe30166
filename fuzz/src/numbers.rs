//! Numbers at which programs break: the ends of their ranges, what is no number, and small ones, which are often right.

use proptest::prelude::*;

/// Any f32, often one that is not finite or at an end of the range.
pub fn any_f32() -> impl Strategy<Value = f32> + Clone {
    let odd =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0];
    prop_oneof![
        2 => prop::sample::select(odd.to_vec()),
        4 => (-8_i8..8).prop_map(f32::from),
        1 => any::<u32>().prop_map(f32::from_bits),
    ]
}

/// Any f64, often one that is not finite or at an end of the range.
pub fn any_f64() -> impl Strategy<Value = f64> + Clone {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324, 1e300, 0.0, -0.0, 1.0];
    prop_oneof![
        2 => prop::sample::select(odd.to_vec()),
        2 => -8.0..8.0,
        2 => 0.0..1.0,
        1 => any::<u64>().prop_map(f64::from_bits),
    ]
}

/// Any number, mostly a small one, and often the largest or smallest of its type or of a narrower one.
pub fn any_number() -> impl Strategy<Value = u64> + Clone {
    let odd =
        [u64::MAX, u64::MAX - 1, i64::MAX as u64, i64::MIN as u64, u32::MAX.into(), i32::MAX as u64, 1 << 31];
    prop_oneof![
        6 => 0..12_u64,
        2 => 0..300_u64,
        2 => prop::sample::select(odd.to_vec()),
        1 => any::<u64>(),
    ]
}

/// The same in 32 bits.
pub fn any_count() -> impl Strategy<Value = u32> + Clone {
    any_number().prop_map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}
