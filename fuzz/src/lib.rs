//! Hostile input for decoders: bytes that are nearly right, numbers that are nearly numbers, and one loop that feeds a
//! decoder with them for as long as it is told to (`just fuzz`).
//!
//! Knows nothing about what is decoded: no other crate of the workspace. Only tests know it.

mod mutation;
mod numbers;
mod property;
mod target;

pub use mutation::{Encoded, mutated};
pub use numbers::{any_count, any_f32, any_f64, any_number};
pub use property::{assert_bounded, assert_one_line, sentence, within};
pub use target::{Verdict, fuzz};
