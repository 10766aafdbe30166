//! Inference on a device: weights and states live there, a call sends it token ids and gets back what was asked for.
//!
//! A state is a slot of a table in the device's memory. A step reads the slots of its rows and writes other ones, so that
//! nothing is copied when a session is forked, no state is changed by a call that fails, and no kernel reads what another one
//! of the same launch writes. All memory is taken once, when the model is loaded; a step allocates nothing, and its kernels
//! read their tokens from the host's memory and write their answers to it by themselves. That memory has two sides: while the
//! device computes what one of them tells, the host takes in what has arrived in the other. The sequence of launches is pure
//! bookkeeping over [`launcher::Launcher`], which is CUDA, or the emulation in which tests run the same kernels.
//!
//! Knows nothing about files, vocabularies or sessions.

mod answers;
mod call;
mod engine;
mod forward;
mod halves;
mod launcher;
mod launches;
mod memory;
mod output;
mod part;
mod recording;
mod recurrence;
mod scan;
mod side;
mod slots;
mod submission;
#[cfg(all(test, feature = "emulated"))]
mod tests;
mod weights;

pub(crate) use engine::{DeviceEngine, Part};
pub(crate) use launcher::Launcher;
pub(crate) use side::Found;
pub(crate) use slots::Slot;
