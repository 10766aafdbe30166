//! The device's memory that a model takes beside its weights: one tensor, cut into regions once. Knows nothing about what is
//! in them.

use std::cell::Cell;

use candle_core::{CpuStorage, CudaStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};
use chorus_kernels::Address;

use super::launcher::address_of;

/// What regions begin at a multiple of, in bytes.
const ALIGNMENT: usize = 256;

/// A part of the memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Region {
    offset: usize,
}

/// Cuts memory that is not taken yet into regions.
#[derive(Debug, Default)]
pub(super) struct Plan {
    bytes: usize,
}

/// The memory. It belongs to the engine alone, which writes it in in-place operations of candle.
#[derive(Debug)]
pub(super) struct Memory {
    tensor: Tensor,
}

/// An operation that is given the address of the memory.
struct Operation<F> {
    name: &'static str,
    /// Taken by the one call: an operation is lent, and this one may write what it captures.
    run: Cell<Option<F>>,
}

impl Plan {
    /// The next region.
    pub(super) fn region(&mut self, bytes: usize) -> Region {
        let region = Region { offset: self.bytes };
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        region
    }

    /// Bytes of all regions.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Region {
    /// Where it is in memory that begins there.
    pub(super) fn at(self, memory: Address) -> Address {
        memory.plus(self.offset)
    }
}

impl Memory {
    /// Takes the memory of a plan; all of it is zero.
    pub(super) fn take(plan: &Plan, device: &Device) -> Result<Self> {
        Ok(Self { tensor: Tensor::zeros(plan.bytes() + ALIGNMENT, DType::U8, device)? })
    }

    /// Runs an operation that writes regions of the memory and may read weights.
    pub(super) fn write<T>(&self, name: &'static str, run: impl FnOnce(Address) -> Result<T>) -> Result<T> {
        let mut result = None;
        let run = |memory: Address| {
            result = Some(run(memory.plus(memory.0.wrapping_neg() as usize % ALIGNMENT)));
        };
        self.tensor.inplace_op1(&Operation { name, run: Cell::new(Some(run)) })?;
        match result {
            Some(result) => result,
            None => bail!("{name} did not run"),
        }
    }
}

impl<F: FnOnce(Address)> Operation<F> {
    fn run(&self, memory: Address) -> Result<()> {
        match self.run.take() {
            Some(run) => run(memory),
            None => bail!("{} runs once", self.name),
        }
        Ok(())
    }
}

impl<F: FnOnce(Address)> InplaceOp1 for Operation<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        match storage {
            CpuStorage::U8(bytes) => self.run(Address(bytes.as_mut_ptr() as u64)),
            _ => bail!("the memory is of bytes"),
        }
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        self.run(address_of::cuda(storage, DType::U8, layout.start_offset())?)
    }
}
