//! Where a code, a scale and a minimum of a column stand in panels: written once, and read where a row is wanted as numbers.

use super::BlockPanels;
use super::form::Block;
use crate::quantization::Quantization;

/// How the bits of codes stand in bytes: in one plane, or in two of which the second holds the high bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// One code a byte.
    Bytes,
    /// Two codes of four bits a byte.
    Nibbles,
    /// Their low four bits so, and beside them the high two bits of four codes a byte.
    NibblesAndPairs,
}

impl Packing {
    pub(super) fn of(quantization: Quantization) -> Self {
        match quantization {
            Quantization::Q8_0 => Self::Bytes,
            Quantization::Q6K => Self::NibblesAndPairs,
            Quantization::Q4K => Self::Nibbles,
        }
    }

    /// Bytes of a column's block in either plane.
    pub(super) fn bytes(self, unit: usize) -> (usize, usize) {
        match self {
            Self::Bytes => (unit, 0),
            Self::Nibbles => (unit / 2, 0),
            Self::NibblesAndPairs => (unit / 2, unit / 4),
        }
    }
}

impl BlockPanels {
    /// Where the code of a k of a block stands among unpacked ones.
    fn place(&self, k: usize, column: usize) -> usize {
        let group = self.kernel.group();
        (k / group * self.width() + column) * group + k % group
    }

    /// Which byte of its block holds a code's bits, and from which bit on, where `shared` groups of k share bytes.
    fn shared_place(&self, k: usize, column: usize, shared: usize, bits: usize) -> (usize, usize) {
        let group = self.kernel.group();
        let slab = k / group;
        (self.place(slab / shared * group + k % group, column), slab % shared * bits)
    }

    /// Writes a column's block, `place` counting blocks of all panels.
    pub(super) fn set(&mut self, place: usize, column: usize, block: &Block) {
        let (form, width) = (self.form, self.width());
        for (k, &code) in block.codes[..form.unit].iter().enumerate() {
            match Packing::of(form.quantization) {
                Packing::Bytes => {
                    let at = place * form.unit * width + self.place(k, column);
                    self.codes[at] = code;
                }
                packing => {
                    let (byte, bit) = self.shared_place(k, column, 2, 4);
                    self.codes[place * form.unit / 2 * width + byte] |= (code & 0xf) << bit;
                    if packing == Packing::NibblesAndPairs {
                        let (byte, bit) = self.shared_place(k, column, 4, 2);
                        self.high[place * form.unit / 4 * width + byte] |= code >> 4 << bit;
                    }
                }
            }
        }
        self.factors[place * width + column] = block.factor;
        for part in 0..form.parts() {
            let at = (place * form.parts() + part) * width + column;
            if form.has_scales() {
                self.scales[at] = block.scales[part];
            }
            if form.has_minimums() {
                self.minimums[at] = block.minimums[part];
            }
        }
        if form.has_minimums() {
            self.least[place * width + column] = block.least;
        }
    }

    /// A code, `place` counting blocks of all panels.
    fn code(&self, place: usize, column: usize, k: usize) -> u8 {
        let (unit, width) = (self.form.unit, self.width());
        match Packing::of(self.form.quantization) {
            Packing::Bytes => self.codes[place * unit * width + self.place(k, column)],
            packing => {
                let (byte, bit) = self.shared_place(k, column, 2, 4);
                let low = self.codes[place * unit / 2 * width + byte] >> bit & 0xf;
                if packing == Packing::Nibbles {
                    return low;
                }
                let (byte, bit) = self.shared_place(k, column, 4, 2);
                low | (self.high[place * unit / 4 * width + byte] >> bit & 3) << 4
            }
        }
    }

    /// The numbers that a row of the matrix stands for, where columns are in order: `depth` of them.
    pub(in crate::engine) fn read_row(&self, row: usize, numbers: &mut [f32]) {
        let (form, width) = (self.form, self.width());
        let (panel, column) = (row / width, row % width);
        for (block, numbers) in numbers.chunks_mut(form.unit).enumerate() {
            let place = panel * self.blocks() + block;
            let factor = self.factors[place * width + column].to_f32();
            let least = self.least.get(place * width + column).map_or(0.0, |least| least.to_f32());
            for (part, numbers) in numbers.chunks_mut(form.part).enumerate() {
                let at = (place * form.parts() + part) * width + column;
                let scale = factor * self.scales.get(at).map_or(1.0, |&scale| f32::from(scale));
                let minimum = least * self.minimums.get(at).map_or(0.0, |&minimum| f32::from(minimum));
                for (k, number) in numbers.iter_mut().enumerate() {
                    let code = i32::from(self.code(place, column, part * form.part + k)) - form.zero;
                    *number = scale * code as f32 - minimum;
                }
            }
        }
    }
}
