//! A grid on the host, thread by thread: every thread of a kernel is a coroutine, and all of them run on the thread that
//! launches. Blocks run one after the other, or side by side where they wait for each other.
//!
//! What a device leaves undefined is an error here where it can be seen: threads that wait for each other in vain, lanes
//! that exchange numbers with one that has ended. Memory is the host's own and not checked. Knows nothing about what the
//! kernels compute.

mod block;
mod chance;
mod registry;
mod thread;

use std::{ffi::c_void, fmt};

use crate::{Arguments, Grid, Kernel, WARP};
use block::Blocks;
pub use chance::Chance;
use registry::find;

/// Why a grid could not run to its end. What the kernel wrote until then is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmulationError {
    /// There is no such kernel.
    Unknown(String),
    /// Its struct has another size.
    Arguments {
        /// In Rust.
        found: usize,
        /// In C++.
        expected: usize,
    },
    /// A block has more threads than the kernel was compiled for, none, or no whole warps.
    Threads {
        /// In the grid.
        found: u32,
        /// At most.
        allowed: u32,
    },
    /// Threads wait for each other, and none can go on.
    Deadlock {
        /// Which block.
        block: (u32, u32),
        /// Whom each of the first few waits for.
        waiting: String,
    },
}

impl fmt::Display for EmulationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(formatter, "there is no kernel {name}"),
            Self::Arguments { found, expected } => {
                write!(formatter, "its arguments have {found} bytes here and {expected} in the kernel")
            }
            Self::Threads { found, allowed } => {
                write!(formatter, "{found} threads in a block, allowed are whole warps, at most {allowed}")
            }
            Self::Deadlock { block: (x, y), waiting } => {
                write!(formatter, "block ({x}, {y}) waits for ever: {waiting}")
            }
        }
    }
}

impl std::error::Error for EmulationError {}

/// Runs a kernel over a grid to its end.
///
/// # Errors
/// The grid, the arguments or the kernel itself are wrong: [`EmulationError`].
///
/// # Safety
/// All that the kernel reads and writes by these arguments is memory of the process, for that long and of that size, and
/// nobody else uses it meanwhile.
pub unsafe fn launch<A: Arguments>(kernel: Kernel, grid: Grid, arguments: &A) -> Result<(), EmulationError> {
    let name = kernel.to_string();
    let expected = argument_bytes(&name).ok_or_else(|| EmulationError::Unknown(name.clone()))?;
    if expected != size_of::<A>() {
        return Err(EmulationError::Arguments { found: size_of::<A>(), expected });
    }
    // SAFETY: the arguments are of the kernel's type; the rest is the caller's.
    unsafe { launch_named(&name, grid, std::ptr::from_ref(arguments).cast::<c_void>()) }
}

/// Bytes of the arguments of the kernel of that name, if there is one.
#[must_use]
pub fn argument_bytes(name: &str) -> Option<usize> {
    find(name).map(|found| found.argument_bytes)
}

/// The same by the kernel's name.
///
/// # Errors
/// As [`launch`].
///
/// # Safety
/// As for [`launch`], and the arguments are the kernel's.
pub unsafe fn launch_named(name: &str, grid: Grid, arguments: *const c_void) -> Result<(), EmulationError> {
    let found = find(name).ok_or_else(|| EmulationError::Unknown(name.to_owned()))?;
    if grid.threads == 0 || grid.threads > found.threads || !grid.threads.is_multiple_of(WARP) {
        return Err(EmulationError::Threads { found: grid.threads, allowed: found.threads });
    }
    let body = || {
        // SAFETY: the arguments are of the kernel's type, and the caller vouches for what they point to.
        unsafe { (found.run)(arguments) }
    };
    let all = (0..grid.blocks.1).flat_map(|y| (0..grid.blocks.0).map(move |x| (x, y)));
    if grid.is_cooperative {
        return Blocks::new(grid, all.collect()).run(&body);
    }
    let mut blocks = all.map(|block| Blocks::new(grid, vec![block]));
    blocks.try_for_each(|block| block.run(&body))
}
