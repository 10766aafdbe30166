//! What runs kernels: CUDA, or the emulation of it. Both are given the same launches and addresses. Knows nothing about what
//! is computed.

pub(super) mod address_of;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "emulated")]
pub(super) mod emulated;
mod host_memory;

use candle_core::{Device, Result};
use chorus_kernels::{Address, Arguments, Grid, Kernel, WeightKind};

use super::recording::Recording;
pub(super) use host_memory::HostMemory;

/// Runs kernels on one device, in the order in which they are launched.
#[derive(Debug)]
pub(crate) enum Launcher {
    /// An NVIDIA device.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Cuda>),
    /// Thread by thread on the host.
    #[cfg(feature = "emulated")]
    Emulated(emulated::Emulated),
}

/// What a device is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties {
    /// Blocks that run at the same time at least.
    pub(super) multiprocessors: u32,
    /// Shared memory that a block may have.
    pub(super) shared_bytes: u32,
    /// The cache that all multiprocessors share.
    pub(super) cache_bytes: u32,
}

/// `sums[rows, outputs] (+)= input[rows, depth] weights[outputs, depth]ᵀ`, sums in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) kind: WeightKind,
    pub(super) weights: Address,
    pub(super) outputs: usize,
    pub(super) depth: usize,
    pub(super) input: Address,
    pub(super) rows: usize,
    pub(super) sums: Address,
    /// Whether the products are added to what stands there.
    pub(super) adds: bool,
}

impl Launcher {
    /// For a device of candle's; its CPU stands for the emulation.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Self::Cuda(Box::new(cuda::Cuda::new(device)?))),
            #[cfg(feature = "emulated")]
            Device::Cpu => Ok(Self::Emulated(emulated::Emulated::default())),
            other => candle_core::bail!("there are no kernels for {other:?}"),
        }
    }

    /// The emulation, for tests of what it does when.
    #[cfg(all(test, feature = "emulated"))]
    pub(super) fn emulation(&self) -> &emulated::Emulated {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => panic!("tests of the emulation run on it"),
            Self::Emulated(emulated) => emulated,
        }
    }

    /// What the device is like.
    pub(super) fn properties(&self) -> Properties {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.properties(),
            #[cfg(feature = "emulated")]
            Self::Emulated(_) => emulated::PROPERTIES,
        }
    }

    /// Bytes of the device's memory that are free, and all of them.
    pub(super) fn free_bytes(&self) -> Result<(u64, u64)> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.free_bytes(),
            #[cfg(feature = "emulated")]
            Self::Emulated(_) => Ok((emulated::MEMORY_BYTES, emulated::MEMORY_BYTES)),
        }
    }

    /// Memory of the host that kernels read and write.
    pub(super) fn host_memory(&self, bytes: usize) -> Result<HostMemory> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.host_memory(bytes),
            #[cfg(feature = "emulated")]
            Self::Emulated(_) => Ok(HostMemory::plain(bytes)),
        }
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// All that the kernel reads and writes by these arguments is memory of the device, or of the host for kernels, until the
    /// device has come to a mark behind it, and the host uses none of it before.
    pub(super) unsafe fn launch<A: Arguments>(
        &self,
        kernel: Kernel,
        grid: Grid,
        arguments: &A,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            // SAFETY: the caller's.
            Self::Cuda(cuda) => unsafe { cuda.launch(kernel, grid, arguments) },
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => {
                // SAFETY: the caller's.
                unsafe { emulated.launch(kernel, grid, arguments) };
                Ok(())
            }
        }
    }

    /// Multiplies.
    ///
    /// # Safety
    /// As for [`Launcher::launch`].
    pub(super) unsafe fn multiply(&self, product: &Product) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            // SAFETY: the caller's.
            Self::Cuda(cuda) => unsafe { cuda.multiply(product) },
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => {
                // SAFETY: the caller's.
                unsafe { emulated.multiply(product) };
                Ok(())
            }
        }
    }

    /// Makes launches, or makes those again that were recorded under the same name: then they are one.
    pub(super) fn run(&self, recording: Option<Recording>, launches: &dyn Fn() -> Result<()>) -> Result<()> {
        match (self, recording) {
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Some(recording)) => cuda.run_recorded(recording, launches),
            _ => launches(),
        }
    }

    /// Waits until everything that was launched is done, and every copy.
    pub(super) fn finish(&self) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.finish(),
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => emulated.finish(),
        }
    }

    /// Starts to copy memory of the device to the host's, beside all launches, and when the device has come to a mark if there is
    /// one. Copies of a lane are made in order.
    ///
    /// # Safety
    /// So many bytes are memory of the device there, which nobody writes before the copy is done, and the host's memory is
    /// there until then, and nobody uses it.
    pub(super) unsafe fn copy_out(
        &self,
        lane: Lane,
        after: Option<&Mark>,
        from: Address,
        to: &mut HostMemory,
        bytes: usize,
    ) -> Result<Mark> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => {
                // SAFETY: the caller's.
                let copied = unsafe { cuda.copy_out(lane, after.and_then(Mark::cuda), from, to, bytes) };
                copied.map(Mark::Cuda)
            }
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => {
                let (after, to) = (after.and_then(Mark::emulated), &mut to.bytes_mut()[..bytes]);
                // SAFETY: the caller's.
                Ok(Mark::Emulated(unsafe { emulated.copy_out(lane, after, from, to) }))
            }
        }
    }

    /// Starts to copy memory of the host to the device's, behind everything that was launched.
    ///
    /// # Safety
    /// So many bytes are memory of the device there, and the host's memory is there until the copy is done, and nobody writes it.
    pub(super) unsafe fn copy_in(&self, from: &HostMemory, to: Address, bytes: usize) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            // SAFETY: the caller's.
            Self::Cuda(cuda) => unsafe { cuda.copy_in(from, to, bytes) },
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => {
                // SAFETY: the caller's.
                unsafe { emulated.copy_in(&from.bytes()[..bytes], to) };
                Ok(())
            }
        }
    }

    /// A mark behind everything that was launched so far.
    pub(super) fn mark(&self) -> Result<Mark> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.mark().map(Mark::Cuda),
            #[cfg(feature = "emulated")]
            Self::Emulated(emulated) => Ok(Mark::Emulated(emulated.mark())),
        }
    }

    /// Waits until the device has come to a mark.
    pub(super) fn wait(&self, mark: &Mark) -> Result<()> {
        match (self, mark) {
            #[cfg(feature = "cuda")]
            (Self::Cuda(_), Mark::Cuda(event)) => event.wait(),
            #[cfg(feature = "emulated")]
            (Self::Emulated(emulated), Mark::Emulated(mark)) => emulated.wait(*mark),
            #[cfg(all(feature = "cuda", feature = "emulated"))]
            _ => candle_core::bail!("a mark is of another device"),
        }
    }
}

/// Copies that wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Whole rows, which are large.
    Rows,
    /// States, which wait for no rows.
    States,
}

/// A place in the order of launches, or of the copies of a lane.
#[derive(Debug)]
pub(super) enum Mark {
    /// An event of CUDA's.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Event),
    /// The emulation's.
    #[cfg(feature = "emulated")]
    Emulated(emulated::Mark),
}

impl Mark {
    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&cuda::Event> {
        match self {
            Self::Cuda(event) => Some(event),
            #[cfg(feature = "emulated")]
            Self::Emulated(_) => None,
        }
    }

    #[cfg(feature = "emulated")]
    fn emulated(&self) -> Option<emulated::Mark> {
        match self {
            Self::Emulated(mark) => Some(*mark),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => None,
        }
    }
}
