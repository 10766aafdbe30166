//! How a kernel over slices becomes an in-place operation on candle tensors. Knows nothing about what is computed.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use crate::matrix::in_memory;

/// A storage of f32 that grows and is written in place.
///
/// The tensor is a view of its first number: candle lists the axes of a longer destination on the heap, at every
/// operation. Kernels are given the whole storage, which belongs to this buffer alone.
#[derive(Debug)]
pub(super) struct Buffer(Tensor);

/// A kernel `(destination, sources)` by name.
struct Kernel<F> {
    name: &'static str,
    /// Taken by the one call: an operation is lent, and a kernel may write what it captures.
    run: Cell<Option<F>>,
}

impl Buffer {
    pub(super) fn empty() -> Result<Self> {
        Self::of_size(1)
    }

    fn of_size(numbers: usize) -> Result<Self> {
        Ok(Self(Tensor::zeros(numbers, DType::F32, &Device::Cpu)?.narrow(0, 0, 1)?))
    }

    /// Makes room for so many numbers. What stood in the buffer is gone if it had less.
    pub(super) fn reserve(&mut self, numbers: usize) -> Result<()> {
        if self.read(<[f32]>::len)? < numbers {
            *self = Self::of_size(numbers.next_power_of_two())?;
        }
        Ok(())
    }

    /// Runs a kernel that reads nothing else, or only what it captures.
    pub(super) fn write(&self, name: &'static str, kernel: impl FnOnce(&mut [f32])) -> Result<()> {
        self.0.inplace_op1(&Kernel::new(name, kernel))
    }

    /// Runs a kernel that reads another buffer.
    pub(super) fn write_from(
        &self,
        name: &'static str,
        source: &Self,
        kernel: impl FnOnce(&mut [f32], &[f32]),
    ) -> Result<()> {
        self.0.inplace_op2(&source.0, &Kernel::new(name, kernel))
    }

    /// Hands the numbers to a reader.
    pub(super) fn read<T>(&self, reader: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let (storage, _) = self.0.storage_and_layout();
        Ok(reader(in_memory(&storage)?.as_slice()?))
    }
}

impl<F> Kernel<F> {
    fn new(name: &'static str, run: F) -> Self {
        Self { name, run: Cell::new(Some(run)) }
    }

    fn take(&self) -> Result<F> {
        match self.run.take() {
            Some(run) => Ok(run),
            None => bail!("{} runs once", self.name),
        }
    }
}

fn numbers(storage: &mut CpuStorage) -> Result<&mut [f32]> {
    match storage {
        CpuStorage::F32(values) => Ok(values),
        _ => bail!("a buffer holds f32"),
    }
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        self.take()?(numbers(storage)?);
        Ok(())
    }
}

impl<F: FnOnce(&mut [f32], &[f32])> InplaceOp2 for Kernel<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout, source: &CpuStorage, _: &Layout) -> Result<()> {
        self.take()?(numbers(storage)?, source.as_slice()?);
        Ok(())
    }
}
