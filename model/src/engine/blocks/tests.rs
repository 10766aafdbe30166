//! Every kernel against candle's own products with the same blocks, and against the numbers that the blocks stand for.

use bytemuck::cast_slice;
use candle_core::quantized::k_quants::{BlockQ8_0, BlockQ8K, GgmlType};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Module as _, Tensor};
use proptest::prelude::*;
use pulp::WithSimd;

use super::*;
use crate::engine::panels::padded;
use crate::engine::weights::Lanes;

struct Multiply<'a> {
    panels: &'a BlockPanels,
    rows: &'a BlockRows,
    count: usize,
    panel: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut sums = vec![[simd.splat_f32s(1.0); VECTORS]; self.count];
        self.panels.add_product::<S>(&mut sums, self.rows, 0, self.panel);
        cast_slice(&sums).to_vec()
    }
}

/// Every kernel that can run here, with the instruction set whose panels it reads.
fn kernels() -> Vec<(Arch, Kernel)> {
    let all = chorus_simd::all_instructions().into_iter();
    all.flat_map(|arch| Kernel::all_of_blocks(arch).into_iter().map(move |kernel| (arch, kernel))).collect()
}

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// A matrix `[out, depth]` in blocks, its rows filled up.
fn quantized(weight: &[f32], out: usize, depth: usize, quantization: Quantization) -> QTensor {
    let tensor = Tensor::from_slice(weight, (out, depth), &Device::Cpu).unwrap();
    let missing = depth.next_multiple_of(quantization.block()) - depth;
    QTensor::quantize(&tensor.pad_with_zeros(1, 0, missing).unwrap(), quantization.ggml_type()).unwrap()
}

/// The products `[count][out]` of all panels, less the one that every sum begins with.
fn product(
    arch: Arch,
    kernel: Kernel,
    matrix: &QTensor,
    input: &[f32],
    out: usize,
    depth: usize,
) -> Vec<f32> {
    let quantization =
        Quantization::ALL.into_iter().find(|known| known.ggml_type() == matrix.dtype()).unwrap();
    let (lanes, columns) = (arch.dispatch(Lanes), Columns::InOrder { count: out });
    let count = input.len() / depth;
    let blocks = matrix.data().unwrap();
    let stored = Stored { rows: &blocks, quantization, depth };
    let panels = BlockPanels::pack_for(stored, columns, lanes, arch, kernel).unwrap();
    let mut activations = vec![0.0; padded(depth, lanes) * count];
    for (row, input) in input.chunks(depth).enumerate() {
        for (k, value) in input.iter().enumerate() {
            activations[(k / lanes * count + row) * lanes + k % lanes] = *value;
        }
    }
    let mut rows = BlockRows::default();
    panels.fill(&mut rows, Activations { values: &activations, rows: count, stride: lanes }, count);
    let mut products = vec![0.0; count * out];
    let width = VECTORS * lanes;
    for panel in 0..columns.panels(lanes) {
        let sums = arch.dispatch(Multiply { panels: &panels, rows: &rows, count, panel });
        for (row, sums) in sums.chunks(width).enumerate() {
            for (column, sum) in (panel * width..).zip(sums) {
                match column < out {
                    true => products[row * out + column] = sum - 1.0,
                    false => assert_eq!(*sum, 1.0, "a column that the matrix has not"),
                }
            }
        }
    }
    products
}

/// candle's product of the same blocks with a row in its own blocks of 8 bits.
fn candle_product(matrix: &QTensor, input: &[f32], depth: usize) -> Vec<f32> {
    let padded = matrix.shape().dims()[1];
    let rows: Vec<f32> = input
        .chunks(depth)
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, padded - depth)))
        .collect();
    let rows = Tensor::from_vec(rows, (input.len() / depth, padded), &Device::Cpu).unwrap();
    let matrix = QTensor::new(
        candle_core::quantized::QStorage::from_data(matrix.data().unwrap(), &Device::Cpu, matrix.dtype())
            .unwrap(),
        matrix.shape(),
    );
    let product = candle_core::quantized::QMatMul::from_qtensor(matrix.unwrap()).unwrap().forward(&rows);
    product.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// By how much a row's sum may be off: half a step of each input, and what rounding to f32 costs.
fn bound(matrix: &Tensor, row: &[f32]) -> f32 {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let weights: Vec<f32> = matrix.abs().unwrap().sum(1).unwrap().to_vec1().unwrap();
    weights.iter().fold(0f32, |most, sum| most.max(*sum)) * largest * (0.501 / 127.0 + 1e-5) + 1e-5
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_kernel_is_near_the_numbers_that_blocks_stand_for_and_all_have_the_same_bits(
        count in 1_usize..9, depth in 1_usize..600, out in 1_usize..150, seed in 0_usize..1000,
        quantization in prop::sample::select(Quantization::ALL.to_vec()),
    ) {
        let (weight, input) = (values(out * depth, seed), values(count * depth, seed + 1));
        let matrix = quantized(&weight, out, depth, quantization);
        let numbers = matrix.dequantize(&Device::Cpu).unwrap().narrow(1, 0, depth).unwrap();
        let rows = Tensor::from_slice(&input, (count, depth), &Device::Cpu).unwrap();
        let exact = rows.matmul(&numbers.t().unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut by_instructions: Vec<Vec<f32>> = Vec::new();
        for (arch, kernel) in kernels() {
            let found = product(arch, kernel, &matrix, &input, out, depth);
            for (row, input) in input.chunks(depth).enumerate() {
                let allowed = bound(&numbers, input);
                for column in row * out..(row + 1) * out {
                    let off = (found[column] - exact[column]).abs();
                    prop_assert!(off <= allowed, "{:?} {:?}: {} not {}", arch, kernel, found[column], exact[column]);
                }
            }
            by_instructions.push(found);
        }
        // Sums within a block are exact, and between blocks in one order.
        prop_assert!(by_instructions.iter().all(|found| found == &by_instructions[0]));
    }
}

/// A value that is a tie of integers for who rounds its product with the inverse of the scale, and none for who does not.
#[test]
fn ties_go_the_same_way_on_every_processor() {
    let (count, depth, seed, quantization) = (5, 47, 814, Quantization::Q8_0);
    let (weight, input) = (values(depth, seed), values(count * depth, seed + 1));
    let matrix = quantized(&weight, 1, depth, quantization);
    let products: Vec<_> = kernels()
        .into_iter()
        .map(|(arch, kernel)| product(arch, kernel, &matrix, &input, 1, depth))
        .collect();
    assert!(products.iter().all(|found| found == &products[0]), "{products:?}");
}

/// candle quantises activations to the same integers but for ties, and sums in another order.
#[test]
fn products_are_those_of_candle() {
    for quantization in Quantization::ALL {
        let (count, depth, out) = (5, 650, 96);
        let (weight, input) = (values(out * depth, 3), values(count * depth, 4));
        let matrix = quantized(&weight, out, depth, quantization);
        let theirs = candle_product(&matrix, &input, depth);
        let (arch, kernel) = kernels()[0];
        let ours = product(arch, kernel, &matrix, &input, out, depth);
        let size = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
        let off = ours.iter().zip(&theirs).fold(0f32, |most, (one, other)| most.max((one - other).abs()));
        // A tie is a step of one input; candle's q8_0 has activations in blocks of 256 or 32, as the processor goes.
        assert!(off < 0.01 * size, "{quantization}: {off} of {size}");
    }
}

#[test]
fn activations_are_quantised_as_candle_does_but_for_ties() {
    let input = values(512, 9);
    for quantization in [Quantization::Q8_0, Quantization::Q4K] {
        let form = Form::of(quantization);
        let (arch, _) = kernels()[0];
        let lanes = arch.dispatch(Lanes);
        let mut rows = BlockRows::default();
        rows.fill(Activations { values: &input, rows: 1, stride: lanes }, 1, 512, form, arch);
        let mut theirs = vec![0.0; 512];
        match quantization.ggml_type() {
            GgmlDType::Q8_0 => {
                let mut blocks = vec![BlockQ8_0::zeros(); 16];
                BlockQ8_0::from_float(&input, &mut blocks);
                BlockQ8_0::to_float(&blocks, &mut theirs);
            }
            _ => {
                let mut blocks = vec![BlockQ8K::zeros(); 2];
                BlockQ8K::from_float(&input, &mut blocks);
                BlockQ8K::to_float(&blocks, &mut theirs);
            }
        }
        let row = rows.row(0);
        for (k, theirs) in theirs.iter().enumerate() {
            let scale = row.scales[k / form.unit];
            let ours = f32::from(row.values[k]) * scale;
            // Either rounds half a step; candle's scale is f16 in q8_0.
            assert!((ours - theirs).abs() <= 1.1 * scale, "{quantization} {k}: {ours} {theirs}");
        }
    }
}

#[test]
fn a_row_is_read_as_candle_reads_it() {
    for quantization in Quantization::ALL {
        let (depth, out) = (300, 131);
        let matrix = quantized(&values(out * depth, 5), out, depth, quantization);
        let expected = matrix.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        for (arch, kernel) in kernels() {
            let (lanes, columns) = (arch.dispatch(Lanes), Columns::InOrder { count: out });
            let blocks = matrix.data().unwrap();
            let stored = Stored { rows: &blocks, quantization, depth };
            let panels = BlockPanels::pack_for(stored, columns, lanes, arch, kernel).unwrap();
            for (row, expected) in expected.iter().enumerate() {
                let mut numbers = vec![0.0; depth];
                panels.read_row(row, &mut numbers);
                assert_eq!(numbers, expected[..depth], "{quantization} {row}");
            }
        }
    }
}

#[test]
fn extreme_codes_and_scales_do_not_overflow() {
    for (quantization, bytes) in [
        // Codes of -128, and of 127.
        (Quantization::Q8_0, [&[0, 0x3c][..], &[0x80; 32]].concat()),
        (Quantization::Q8_0, [&[0, 0x3c][..], &[0x7f; 32]].concat()),
        // Codes of 31 and -32 with scales of -128.
        (Quantization::Q6K, [&[0xff; 192][..], &[0x80; 16], &[0, 0x3c]].concat()),
        (Quantization::Q6K, [&[0; 192][..], &[0x80; 16], &[0, 0x3c]].concat()),
        // Codes of 15 with scales and minimums of 63.
        (Quantization::Q4K, [&[0, 0x3c, 0, 0x3c][..], &[0xff; 140]].concat()),
        (Quantization::Q4K, [&[0, 0x3c, 0, 0x3c][..], &[0xff; 12], &[0; 128]].concat()),
    ] {
        let depth = quantization.block();
        let storage =
            candle_core::quantized::QStorage::from_data(bytes.into(), &Device::Cpu, quantization.ggml_type());
        let matrix = QTensor::new(storage.unwrap(), (1, depth)).unwrap();
        let numbers: Vec<f32> =
            matrix.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for input in [vec![1.0; depth], vec![-1.0; depth]] {
            let expected: f64 = numbers.iter().zip(&input).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            for (arch, kernel) in kernels() {
                let found = product(arch, kernel, &matrix, &input, 1, depth)[0];
                let off = (f64::from(found) - expected).abs();
                assert!(
                    off <= 1e-5 * expected.abs() + 1e-3,
                    "{kernel:?} {quantization}: {found} not {expected}"
                );
            }
        }
    }
}
