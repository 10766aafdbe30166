//! In which numbers a model is multiplied. Knows nothing about how.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The numbers of the weight matrices. Everything between products is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats: what the file has.
    #[default]
    F32,
    /// 16-bit floats with 8 bits of fraction and the range of f32, hidden vectors too: half of the memory to read. On devices.
    Bf16,
    /// 16-bit floats with 11 bits of fraction, none above 65,504. On devices.
    F16,
    /// On the CPU. 8-bit integers with a scale for each column, activations quantised row by row on the way: a quarter of the memory to
    /// read, and a small loss. The first layer's input side stays exact where the engine keeps it as a table.
    Int8,
}

/// A precision that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no precision, allowed are f32, bf16, f16 and int8")]
pub struct PrecisionError(String);

impl Precision {
    /// The name that [`FromStr`] reads.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(name: &str) -> Result<Self, PrecisionError> {
        [Self::F32, Self::Bf16, Self::F16, Self::Int8]
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| PrecisionError(name.to_owned()))
    }
}
