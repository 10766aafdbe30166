//! What a block of each type says: integers, their scales and least values, as ggml lays them out.
//!
//! A number is factor · scale · (code - zero) - least · minimum, with a factor and a least value a block, and a scale and a
//! minimum a part of it. Layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>. Knows nothing about
//! panels or products.

use half::f16;

use crate::quantization::Quantization;

/// Numbers in the largest block.
pub(super) const LARGEST_UNIT: usize = 256;
/// Parts in the block with the most.
const MOST_PARTS: usize = 16;

/// The shape of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) quantization: Quantization,
    /// Numbers in a block.
    pub(super) unit: usize,
    /// Numbers that share a scale.
    pub(super) part: usize,
    /// The code of zero, where there are no minimums.
    pub(super) zero: i32,
    /// Bytes of a block in a file.
    bytes: usize,
}

/// One block, read.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Unsigned, of which the first [`Form::unit`] count.
    pub(super) codes: [u8; LARGEST_UNIT],
    pub(super) factor: f16,
    pub(super) scales: [i8; MOST_PARTS],
    pub(super) least: f16,
    pub(super) minimums: [i8; MOST_PARTS],
}

impl Form {
    pub(super) fn of(quantization: Quantization) -> Self {
        let bytes = quantization.ggml_type().type_size();
        let unit = quantization.block();
        let (part, zero) = match quantization {
            Quantization::Q8_0 => (32, 128),
            Quantization::Q6K => (16, 32),
            Quantization::Q4K => (32, 0),
        };
        Self { quantization, unit, part, zero, bytes }
    }

    /// Parts of a block.
    pub(super) fn parts(self) -> usize {
        self.unit / self.part
    }

    /// Whether a part's numbers begin at a least value of their own.
    pub(super) fn has_minimums(self) -> bool {
        self.quantization == Quantization::Q4K
    }

    /// Whether parts have scales of their own; a block with one part needs none.
    pub(super) fn has_scales(self) -> bool {
        self.parts() > 1
    }

    /// The blocks of a row, of which a whole number stands one after the other.
    pub(super) fn blocks(self, row: &[u8]) -> impl Iterator<Item = Block> {
        row.chunks_exact(self.bytes).map(move |bytes| self.read(bytes))
    }

    /// Bytes of a row of so many numbers.
    pub(super) fn row_bytes(self, depth: usize) -> usize {
        depth.div_ceil(self.unit) * self.bytes
    }

    fn read(self, bytes: &[u8]) -> Block {
        let mut block = Block {
            codes: [0; LARGEST_UNIT],
            factor: f16::ZERO,
            scales: [1; MOST_PARTS],
            least: f16::ZERO,
            minimums: [0; MOST_PARTS],
        };
        match self.quantization {
            Quantization::Q8_0 => read_q8_0(bytes, &mut block),
            Quantization::Q6K => read_q6k(bytes, &mut block),
            Quantization::Q4K => read_q4k(bytes, &mut block),
        }
        block
    }
}

fn half(bytes: &[u8]) -> f16 {
    f16::from_le_bytes([bytes[0], bytes[1]])
}

/// A factor and 32 signed integers.
fn read_q8_0(bytes: &[u8], block: &mut Block) {
    block.factor = half(bytes);
    for (code, &byte) in block.codes.iter_mut().zip(&bytes[2..34]) {
        // From -128..=127 to 0..=255.
        *code = byte ^ 0x80;
    }
}

/// The low four bits of 256 integers, their high two bits, 16 signed scales, a factor. Each half of 128 integers stands
/// in four runs of 32 that share bytes.
fn read_q6k(bytes: &[u8], block: &mut Block) {
    let (low, high, scales) = (&bytes[..128], &bytes[128..192], &bytes[192..208]);
    for (index, code) in block.codes.iter_mut().enumerate() {
        let (half, run, place) = (index / 128, index / 32 % 4, index % 32);
        let low = low[half * 64 + run % 2 * 32 + place] >> (run / 2 * 4) & 0xf;
        let high = high[half * 32 + place] >> (run * 2) & 3;
        *code = low | high << 4;
    }
    for (scale, &byte) in block.scales.iter_mut().zip(scales) {
        *scale = byte as i8;
    }
    block.factor = half(&bytes[208..]);
}

/// A factor, a least value, 8 scales and minimums of six bits, and 256 integers of four, of which runs of 32 share bytes.
fn read_q4k(bytes: &[u8], block: &mut Block) {
    (block.factor, block.least) = (half(bytes), half(&bytes[2..]));
    let (packed, codes) = (&bytes[4..16], &bytes[16..144]);
    for part in 0..8 {
        let (scale, minimum) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            let shared = packed[part + 4];
            (shared & 0xf | packed[part - 4] >> 6 << 4, shared >> 4 | packed[part] >> 6 << 4)
        };
        (block.scales[part], block.minimums[part]) = (scale as i8, minimum as i8);
    }
    for (index, code) in block.codes.iter_mut().enumerate() {
        let (run, place) = (index / 32, index % 32);
        *code = codes[run / 2 * 32 + place] >> (run % 2 * 4) & 0xf;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;

    /// The formula of the head, with candle's order of operations.
    fn number(form: Form, block: &Block, index: usize) -> f32 {
        let part = index / form.part;
        let scale = block.factor.to_f32() * f32::from(block.scales[part]);
        let code = (i32::from(block.codes[index]) - form.zero) as f32;
        scale * code - block.least.to_f32() * f32::from(block.minimums[part])
    }

    #[test]
    fn blocks_say_what_candle_reads_in_them() {
        let values: Vec<f32> =
            (0..2048).map(|index| ((index * 7919 % 2003) as f32 / 1001.0 - 0.9).powi(3)).collect();
        for quantization in Quantization::ALL {
            let form = Form::of(quantization);
            let tensor = Tensor::from_slice(&values, (2, 1024), &Device::Cpu).unwrap();
            let quantized = QTensor::quantize(&tensor, quantization.ggml_type()).unwrap();
            let expected: Vec<f32> =
                quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let bytes = quantized.data().unwrap();
            assert_eq!(bytes.len(), 2 * form.row_bytes(1024));
            let found: Vec<f32> = form
                .blocks(&bytes)
                .flat_map(|block| (0..form.unit).map(move |index| number(form, &block, index)))
                .collect();
            assert_eq!(found, expected, "{quantization}");
        }
    }
}
