//! What the emulation does beside running kernels: products, one number after the other. Knows nothing about what is
//! multiplied.

use chorus_kernels::{Address, WeightKind};
use half::{bf16, f16};

use super::{Product, Properties};

/// The emulation: there is nothing to hold.
#[derive(Debug)]
pub(crate) struct Emulated;

/// Its memory: more than any test needs that does not ask for too much.
pub(super) const MEMORY_BYTES: u64 = 4 << 30;

/// A small device: few enough blocks for a scan to take the host no time, and so little shared memory that some rows are
/// staged and some are not.
pub(super) const PROPERTIES: Properties = Properties { multiprocessors: 3, shared_bytes: 48 << 10 };

/// # Safety
/// All addresses are memory of the host, of the product's sizes.
pub(super) unsafe fn multiply(product: &Product) {
    let Product { kind, weights, outputs, depth, input, rows, sums, adds } = *product;
    // SAFETY: the caller's.
    let (weights, input) =
        unsafe { (numbers(kind, weights, outputs * depth), numbers(kind, input, rows * depth)) };
    // SAFETY: the caller's.
    let sums = unsafe { std::slice::from_raw_parts_mut(sums.0 as *mut f32, rows * outputs) };
    for (input, sums) in input.chunks_exact(depth).zip(sums.chunks_exact_mut(outputs)) {
        for (weights, sum) in weights.chunks_exact(depth).zip(sums) {
            let own: f32 = weights.iter().zip(input).map(|(weight, input)| weight * input).sum();
            *sum = if adds { *sum + own } else { own };
        }
    }
}

/// # Safety
/// There are so many numbers of the kind.
unsafe fn numbers(kind: WeightKind, address: Address, count: usize) -> Vec<f32> {
    // SAFETY: the caller's, in each.
    unsafe {
        match kind {
            WeightKind::F32 => std::slice::from_raw_parts(address.0 as *const f32, count).to_vec(),
            WeightKind::Bf16 => widen(std::slice::from_raw_parts(address.0 as *const bf16, count)),
            WeightKind::F16 => widen(std::slice::from_raw_parts(address.0 as *const f16, count)),
        }
    }
}

fn widen<T: Copy + Into<f32>>(numbers: &[T]) -> Vec<f32> {
    numbers.iter().map(|&number| number.into()).collect()
}
