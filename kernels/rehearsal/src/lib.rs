//! A CUDA driver without a device, for a machine that has none: preloaded into a program that was built with the feature
//! `cuda`, it answers the driver's and cuBLAS's functions that a model on a device calls, and runs the kernels in the
//! emulation. So everything between the model and a real driver can be rehearsed: which functions are called, with which
//! arguments, in which order, and what is recorded in a graph.
//!
//! Whatever is not here is left to the library behind it, whose stub fails. Memory is the host's own; a stream does what it is
//! given when somebody waits for it, or earlier, by chance. `CHORUS_REHEARSAL_MEMORY` bounds the memory of the device, in bytes.
//!
//! The functions have the names and types of CUDA's, and none of them is called from Rust. Knows nothing about models.
#![allow(clippy::missing_safety_doc, non_snake_case, reason = "the interface is CUDA's")]

mod blas;
mod driver;
mod graph;
mod memory;
mod stream;

use std::ffi::{c_int, c_uint};

/// CUDA's success.
const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const NOT_FOUND: c_int = 500;
const LAUNCH_FAILED: c_int = 719;
/// What may not be done while a stream records.
const CAPTURE_UNSUPPORTED: c_int = 900;

/// Says on stderr what went wrong, for whoever rehearses.
fn fail(code: c_int, what: impl std::fmt::Display) -> c_int {
    eprintln!("rehearsal: {what}");
    code
}

/// The unused part of a signature.
type Unused = c_uint;
