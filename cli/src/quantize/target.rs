//! What weights are to become: `--to`. Knows nothing about files.

use std::str::FromStr;

use chorus_model::{ModelParts, Quantization, QuantizeError, WeightType};

/// A type of the written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Blocks of small integers.
    Blocks(Quantization),
    F16,
    Bf16,
}

impl Target {
    /// The name that [`FromStr`] reads.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blocks(quantization) => quantization.name(),
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of numbers that are not in blocks, where none are.
    pub(super) fn weight_type(self) -> WeightType {
        match self {
            Self::Bf16 => WeightType::Bf16,
            Self::F16 | Self::Blocks(_) => WeightType::F16,
        }
    }

    /// The model as it is to be written.
    ///
    /// # Errors
    /// It is quantised already, or does not fit the blocks.
    pub(super) fn convert(self, parts: ModelParts) -> Result<ModelParts, QuantizeError> {
        match (self, parts.quantization()) {
            (Self::Blocks(quantization), _) => parts.quantize(quantization),
            (_, Some(found)) => Err(QuantizeError::Already { found }),
            (_, None) => Ok(parts),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let blocks = Quantization::ALL.map(Self::Blocks).into_iter();
        blocks
            .chain([Self::F16, Self::Bf16])
            .find(|target| target.name() == name)
            .ok_or_else(|| "allowed are q8_0, q6k, q4k, f16 and bf16".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_name() {
        for (name, expected) in [
            ("q8_0", Target::Blocks(Quantization::Q8_0)),
            ("q6k", Target::Blocks(Quantization::Q6K)),
            ("q4k", Target::Blocks(Quantization::Q4K)),
            ("f16", Target::F16),
            ("bf16", Target::Bf16),
        ] {
            assert_eq!((name.parse(), expected.name()), (Ok(expected), name));
        }
        for wrong in ["f32", "q4_0", "Q4K", ""] {
            assert!(wrong.parse::<Target>().unwrap_err().contains("q8_0, q6k, q4k, f16 and bf16"), "{wrong}");
        }
    }
}
