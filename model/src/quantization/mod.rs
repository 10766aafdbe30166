//! The block types in which weight matrices are stored and multiplied: ggml's Q8_0, Q6_K and Q4_K, as candle has them.
//!
//! Knows which matrices of a model are quantised and how long a row must be; nothing about files or products.

mod matrix;
mod shapes;

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::GgmlDType;
use thiserror::Error;

use crate::weights::WeightsError;

pub(crate) use matrix::{QuantizedMatrices, dequantized};
pub(crate) use shapes::{Storage, check_rows, storage};

/// How a row of a weight matrix becomes blocks of small integers with a scale each.
///
/// ```
/// use chorus_model::Quantization;
///
/// let quantization: Quantization = "q4k".parse()?;
/// assert_eq!((quantization.block(), quantization.bits_per_weight()), (256, 4.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantization {
    /// 8 bits with a scale for 32 numbers.
    Q8_0,
    /// 6 bits with a scale for 16 numbers, in 8 bits below the scale of a block of 256.
    Q6K,
    /// 4 bits with a scale and a least value for 32 numbers, each in 6 bits below those of a block of 256.
    Q4K,
}

/// A quantization that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no quantization, allowed are q8_0, q6k and q4k")]
pub struct QuantizationError(String);

/// Why a model can't be quantised.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Rows would grow too much by being filled up to whole blocks.
    #[error(
        "tensor {tensor:?} has rows of {length} numbers; {quantization} has blocks of {block}, and filling its rows up to \
         {padded} would add more than a third. Possible for this model: {possible}"
    )]
    RowLength {
        /// Its name.
        tensor: String,
        /// Numbers in a row.
        length: usize,
        /// What was asked for.
        quantization: Quantization,
        /// Numbers in a block of it.
        block: usize,
        /// Numbers in a row of whole blocks.
        padded: usize,
        /// What fits, for people.
        possible: String,
    },
    /// A scale would be infinite.
    #[error("tensor {tensor:?} has numbers that are too large for the scales of {quantization}")]
    TooLarge {
        /// Its name.
        tensor: String,
        /// What was asked for.
        quantization: Quantization,
    },
    /// Quantised once, the original numbers are gone.
    #[error("the model is quantised already, as {found}: quantise the original")]
    Already {
        /// What it is.
        found: Quantization,
    },
    /// What stays a plain tensor does not fit its type.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// A tensor can't be made.
    #[error("tensor {tensor:?} can't be quantised")]
    Convert {
        /// Its name.
        tensor: String,
        /// What candle says.
        source: candle_core::Error,
    },
}

impl From<WeightsError> for QuantizeError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(Box::new(error))
    }
}

impl Quantization {
    /// All of them, the largest first.
    pub const ALL: [Self; 3] = [Self::Q8_0, Self::Q6K, Self::Q4K];

    /// The name that [`FromStr`] reads.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6k",
            Self::Q4K => "q4k",
        }
    }

    /// How many numbers of a row stand in a block.
    #[must_use]
    pub fn block(self) -> usize {
        self.ggml_type().block_size()
    }

    /// What a number takes, with its share of the scales, in a row of whole blocks.
    #[must_use]
    pub fn bits_per_weight(self) -> f64 {
        (8 * self.ggml_type().type_size()) as f64 / self.block() as f64
    }

    pub(crate) fn ggml_type(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q4K => GgmlDType::Q4K,
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Quantization {
    type Err = QuantizationError;

    fn from_str(name: &str) -> Result<Self, QuantizationError> {
        Self::ALL
            .into_iter()
            .find(|quantization| quantization.name() == name)
            .ok_or_else(|| QuantizationError(name.to_owned()))
    }
}
