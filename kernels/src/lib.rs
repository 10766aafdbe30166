//! The kernels that run a model on a device, what they are given, and how the host of a test runs them.
//!
//! The source is CUDA C++ (`cuda/`). With the feature `cuda` nvcc compiles it to [`PTX`]; with `emulated` a C++ compiler
//! does, and [`emulated::launch`] runs a grid thread by thread on the host, so that every line of a kernel is tested where
//! there is no device. Knows nothing about candle, model files, sessions or wires: addresses and shapes come from whoever
//! launches.

mod arguments;
#[cfg(feature = "emulated")]
pub mod emulated;
mod grid;
mod kernel;

pub use arguments::{
    Address, Answer, AnswersArguments, Arguments, Ask, AskKind, BeginArguments, CellArguments,
    EmbedArguments, InputKind, LoadArguments, NO_TOKEN, ProjectArguments, RowsArguments, ScanArguments,
    SelectArguments, TabulateArguments,
};
pub use grid::Grid;
pub use kernel::{ANSWER_ROOM_BYTES, ANSWER_THREADS, IS_SLOT, Kernel, THREADS, Tile, WeightKind};

#[cfg(feature = "cuda")]
#[allow(unreachable_pub, reason = "generated")]
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

/// All kernels as PTX, for the compute capability that they were built for.
#[cfg(feature = "cuda")]
pub const PTX: &str = ptx::KERNELS;
