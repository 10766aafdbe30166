//! How a kernel over slices becomes an in-place operation on candle tensors. Knows nothing about what is computed.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Result, Tensor};

use crate::matrix::{contiguous, in_memory};

/// A tensor of f32 that grows and is written in place.
#[derive(Debug)]
pub(super) struct Buffer(Tensor);

/// A kernel `(destination, sources)` by name.
struct Kernel<F>(&'static str, F);

impl Buffer {
    pub(super) fn empty() -> Result<Self> {
        Ok(Self(Tensor::zeros(1, DType::F32, &Device::Cpu)?))
    }

    /// Makes room for so many numbers. What stood in the buffer is gone if it had less.
    pub(super) fn reserve(&mut self, numbers: usize) -> Result<()> {
        if self.0.elem_count() < numbers {
            *self = Self(Tensor::zeros(numbers.next_power_of_two(), DType::F32, &Device::Cpu)?);
        }
        Ok(())
    }

    /// Runs a kernel that reads nothing else, or only what it captures.
    pub(super) fn write(&self, name: &'static str, kernel: impl Fn(&mut [f32])) -> Result<()> {
        self.0.inplace_op1(&Kernel(name, kernel))
    }

    /// Runs a kernel that reads another buffer.
    pub(super) fn write_from(
        &self,
        name: &'static str,
        source: &Self,
        kernel: impl Fn(&mut [f32], &[f32]),
    ) -> Result<()> {
        self.0.inplace_op2(&source.0, &Kernel(name, kernel))
    }

    /// Hands the numbers to a reader.
    pub(super) fn read<T>(&self, reader: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let (storage, layout) = self.0.storage_and_layout();
        Ok(reader(contiguous(in_memory(&storage)?, layout)?))
    }
}

fn destination<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("a contiguous destination of f32 is needed"),
    }
}

impl<F: Fn(&mut [f32])> InplaceOp1 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.1)(destination(storage, layout)?);
        Ok(())
    }
}

impl<F: Fn(&mut [f32], &[f32])> InplaceOp2 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> Result<()> {
        (self.1)(destination(storage, layout)?, contiguous(source, source_layout)?);
        Ok(())
    }
}
