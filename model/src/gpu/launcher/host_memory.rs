//! Memory of the host that kernels use: on a device it is page-locked, so that the device reads and writes it by itself.
//! Knows nothing about what is in it.

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use chorus_kernels::Address;

/// Bytes, aligned to 16, all zero at first.
#[derive(Debug)]
pub(in crate::gpu) struct HostMemory(Kind);

#[derive(Debug)]
enum Kind {
    #[cfg(feature = "emulated")]
    Plain(Vec<u128>),
    #[cfg(feature = "cuda")]
    Locked(super::cuda::LockedMemory),
}

impl HostMemory {
    #[cfg(feature = "emulated")]
    pub(super) fn plain(bytes: usize) -> Self {
        Self(Kind::Plain(vec![0; bytes.div_ceil(size_of::<u128>())]))
    }

    #[cfg(feature = "cuda")]
    pub(super) fn locked(memory: super::cuda::LockedMemory) -> Self {
        Self(Kind::Locked(memory))
    }

    /// Where kernels find it.
    pub(in crate::gpu) fn address(&self) -> Address {
        Address(self.bytes().as_ptr() as u64)
    }

    /// The numbers in it. Nothing that is launched may write them meanwhile.
    pub(in crate::gpu) fn numbers<T: Pod>(&self) -> &[T] {
        cast_slice(whole::<T>(self.bytes()))
    }

    /// The same, to be written. Nothing that is launched may use them meanwhile.
    pub(in crate::gpu) fn numbers_mut<T: Pod>(&mut self) -> &mut [T] {
        let bytes = self.bytes_mut();
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        cast_slice_mut(&mut bytes[..whole])
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            #[cfg(feature = "emulated")]
            Kind::Plain(words) => cast_slice(words),
            #[cfg(feature = "cuda")]
            Kind::Locked(memory) => memory.bytes(),
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            #[cfg(feature = "emulated")]
            Kind::Plain(words) => cast_slice_mut(words),
            #[cfg(feature = "cuda")]
            Kind::Locked(memory) => memory.bytes_mut(),
        }
    }
}

/// As many bytes as whole numbers have.
fn whole<T>(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]
}
