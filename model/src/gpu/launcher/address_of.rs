//! Where candle keeps a tensor. Knows nothing about what is in it.

use candle_core::{CudaStorage, DType, Result, Storage, Tensor, bail};
use chorus_kernels::Address;

/// Of a tensor whose numbers stand one after the other. It must be kept for as long as the address is used.
pub(in crate::gpu) fn tensor(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    if !layout.is_contiguous() {
        bail!("a kernel needs a tensor whose numbers stand one after the other");
    }
    let (start, dtype) = (layout.start_offset(), tensor.dtype());
    match &*storage {
        Storage::Cpu(storage) => {
            let first = match storage {
                candle_core::CpuStorage::F32(values) => values.as_ptr() as u64,
                candle_core::CpuStorage::BF16(values) => values.as_ptr() as u64,
                candle_core::CpuStorage::F16(values) => values.as_ptr() as u64,
                _ => bail!("kernels take f32, bf16 and f16, and not {dtype:?}"),
            };
            Ok(Address(first).plus(start * dtype.size_in_bytes()))
        }
        Storage::Cuda(storage) => cuda(storage, dtype, start),
        Storage::Metal(_) => bail!("there are no kernels for Metal"),
    }
}

/// Of numbers on a CUDA device, from one of them on.
#[cfg(feature = "cuda")]
pub(in crate::gpu) fn cuda(storage: &CudaStorage, dtype: DType, start: usize) -> Result<Address> {
    use candle_core::cuda_backend::{CudaDType, cudarc::driver::DevicePtr};

    fn first<T: CudaDType>(storage: &CudaStorage) -> Result<u64> {
        let stream = storage.device.cuda_stream();
        // The guard would order other streams behind this use; those for copies wait for marks.
        let (address, _guard) = storage.as_cuda_slice::<T>()?.device_ptr(&stream);
        Ok(address)
    }
    let first = match dtype {
        DType::F32 => first::<f32>(storage)?,
        DType::BF16 => first::<half::bf16>(storage)?,
        DType::F16 => first::<half::f16>(storage)?,
        DType::U8 => first::<u8>(storage)?,
        _ => bail!("kernels take f32, bf16 and f16, and not {dtype:?}"),
    };
    Ok(Address(first).plus(start * dtype.size_in_bytes()))
}

/// There is none.
#[cfg(not(feature = "cuda"))]
pub(in crate::gpu) fn cuda(_: &CudaStorage, _: DType, _: usize) -> Result<Address> {
    bail!("this program was built without CUDA")
}
