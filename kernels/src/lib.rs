//! The kernels that run a model on a device, what they are given, and how the host of a test runs them.
//!
//! The source is CUDA C++ (`cuda/`). With the feature `cuda` nvcc compiles it to PTX (`ptx`); with `emulated` a C++ compiler
//! does, and [`emulated::launch`] runs a grid thread by thread on the host, so that every line of a kernel is tested where
//! there is no device. Knows nothing about candle, model files, sessions or wires: addresses and shapes come from whoever
//! launches.

mod arguments;
#[cfg(any(feature = "cuda", test))]
mod compiled;
#[cfg(feature = "emulated")]
pub mod emulated;
mod grid;
mod kernel;

pub use arguments::{
    Address, Answer, AnswersArguments, Arguments, Ask, AskKind, BeginArguments, CellArguments,
    EmbedArguments, InputKind, LoadArguments, NO_TOKEN, ProjectArguments, RowsArguments, ScanArguments,
    SelectArguments, TabulateArguments,
};
#[cfg(feature = "cuda")]
pub use compiled::{ptx, waits_by_itself};
pub use grid::{Grid, WARP};
pub use kernel::{
    ANSWER_ROOM_BYTES, ANSWER_THREADS, IS_SLOT, Kernel, SCAN_THREADS, THREADS, Tile, WeightKind,
};
