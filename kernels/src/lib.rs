//! The kernels that run a model on a device, what they are given, and how the host of a test runs them.
//!
//! The source is CUDA C++ (`cuda/`). With the feature `cuda` nvcc compiles it to PTX (`ptx`); with `emulated` a C++ compiler
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
pub use kernel::{
    ANSWER_ROOM_BYTES, ANSWER_THREADS, IS_SLOT, Kernel, SCAN_THREADS, THREADS, Tile, WeightKind,
};

#[cfg(feature = "cuda")]
#[allow(unreachable_pub, reason = "generated")]
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

/// Whether a kernel waits by itself for the launch before it, so that it may be launched before that one is done: compiled for
/// an older device it does not, whichever device it runs on.
#[cfg(feature = "cuda")]
#[must_use]
pub fn waits_by_itself(kernel: Kernel) -> bool {
    const HOPPER: u32 = 90;
    let target = ptx(kernel).1.split_once(".target sm_").map_or("", |(_, target)| target);
    let number = target.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or("");
    number.parse().is_ok_and(|number: u32| number >= HOPPER)
}

/// The module that has a kernel, as PTX for the compute capability that it was built for: its name, and the text. One for each
/// type of weights, since a driver compiles all of a module at its first use.
#[cfg(feature = "cuda")]
#[must_use]
pub fn ptx(kernel: Kernel) -> (&'static str, &'static str) {
    match kernel.weights() {
        None => ("chorus-any", ptx::ANY),
        Some(WeightKind::F32) => ("chorus-f32", ptx::F32),
        Some(WeightKind::Bf16) => ("chorus-bf16", ptx::BF16),
        Some(WeightKind::F16) => ("chorus-f16", ptx::F16),
    }
}
