//! What the processors of this machine read and multiply at most. Knows nothing about models.

use std::hint::black_box;
use std::time::Instant;

/// Reads 512 MiB, far more than any cache holds, on every thread.
pub(crate) fn bandwidth(repeats: usize, threads: usize) -> String {
    let values = vec![1u64; 64 << 20];
    let sum = |values: &[u64]| {
        // Eight independent sums, so that additions do not wait for each other.
        let mut sums = [0u64; 64];
        for chunk in values.as_chunks::<64>().0 {
            sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
        }
        sums.iter().sum::<u64>()
    };
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begin = Instant::now();
        rayon::scope(|scope| {
            for part in values.chunks(values.len() / threads) {
                scope.spawn(move |_| {
                    black_box(sum(part));
                });
            }
        });
        rates.push(size_of_val(values.as_slice()) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    format!("{{\"gigabytes_per_second\": {rates:?}}}")
}

/// A square product of 1024 by the `gemm` crate, as candle would compute it.
pub(crate) fn sgemm(repeats: usize, threads: usize) -> String {
    const SIZE: usize = 1024;
    let (left, right) = (vec![0.5f32; SIZE * SIZE], vec![0.25f32; SIZE * SIZE]);
    let mut product = vec![0.0f32; SIZE * SIZE];
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begin = Instant::now();
        // SAFETY: three square row-major matrices of SIZE, borrowed for the call, the product exclusively.
        unsafe {
            gemm::gemm(
                SIZE,
                SIZE,
                SIZE,
                product.as_mut_ptr(),
                1,
                SIZE as isize,
                false,
                left.as_ptr(),
                1,
                SIZE as isize,
                right.as_ptr(),
                1,
                SIZE as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
        black_box(&mut product);
        rates.push(2.0 * (SIZE * SIZE * SIZE) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    format!("{{\"gigaflops\": {rates:?}}}")
}
