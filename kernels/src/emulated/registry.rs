//! The list of kernels that the C++ side keeps. Knows nothing about how they run.

use std::ffi::{CStr, c_char, c_void};

/// A kernel as C++ compiled it. Mirrors `EmulatedKernel` in `cuda/emulated.hpp`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Compiled {
    name: *const c_char,
    /// Of a block, at most.
    pub(super) threads: u32,
    pub(super) argument_bytes: usize,
    pub(super) run: unsafe extern "C" fn(*const c_void),
    next: *const Self,
}

unsafe extern "C" {
    safe fn chorus_emulated_kernels() -> *const Compiled;
}

pub(super) fn find(name: &str) -> Option<&'static Compiled> {
    let mut next = chorus_emulated_kernels();
    // SAFETY: the list was made before `main`, ends with null and is never changed; its names are C strings.
    while let Some(kernel) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        if unsafe { CStr::from_ptr(kernel.name) }.to_bytes() == name.as_bytes() {
            return Some(kernel);
        }
        next = kernel.next;
    }
    None
}
