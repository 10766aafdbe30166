//! What a device copies and multiplies at most, by candle's own operations. Knows nothing about models.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use chorus_model::Precision;

/// Far more than any cache of a device holds.
#[cfg(feature = "cuda")]
const COPIED_BYTES: usize = 1 << 30;
/// A square product of this size keeps every multiprocessor busy.
const SIZE: usize = 8192;
/// Calls between two looks at the clock.
const CALLS: usize = 4;

/// Reads and writes a gibibyte, from memory that is there to memory that is there.
#[cfg(feature = "cuda")]
pub(crate) fn bandwidth(device: &Device, repeats: usize) -> Result<String> {
    let cuda = device.as_cuda_device()?;
    let values = cuda.alloc_zeros::<f32>(COPIED_BYTES / size_of::<f32>())?;
    let mut target = values.clone();
    let rates = rates(device, repeats, (2 * COPIED_BYTES) as f64, || cuda.memcpy_dtod(&values, &mut target))?;
    Ok(format!("{{\"gigabytes_per_second\": {rates:?}}}"))
}

/// There is no device.
#[cfg(not(feature = "cuda"))]
pub(crate) fn bandwidth(device: &Device, _: usize) -> Result<String> {
    candle_core::bail!("built without CUDA: nothing is known of {device:?}")
}

/// A square product in the model's own numbers.
pub(crate) fn multiplication(device: &Device, precision: Precision, repeats: usize) -> Result<String> {
    let dtype = match precision {
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
        Precision::F32 | Precision::Int8 => DType::F32,
    };
    // Random numbers: zeros draw less power, and run faster for it.
    let matrix = || Tensor::rand(-1.0_f32, 1.0, (SIZE, SIZE), device)?.to_dtype(dtype);
    let (left, right) = (matrix()?, matrix()?);
    let operations = 2.0 * (SIZE as f64).powi(3);
    let rates = rates(device, repeats, operations, || left.matmul(&right).map(drop))?;
    Ok(format!("{{\"gigaflops\": {rates:?}}}"))
}

/// What `work` of a call comes to in G a second.
fn rates(
    device: &Device,
    repeats: usize,
    work: f64,
    mut call: impl FnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    call()?;
    device.synchronize()?;
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begin = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        device.synchronize()?;
        rates.push(CALLS as f64 * work / begin.elapsed().as_secs_f64() / 1e9);
    }
    Ok(rates)
}
