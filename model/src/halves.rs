//! Calls in two halves: a device computes one while its host takes in what it has found in another. Knows nothing about how.

use chorus_simd::Reduction;

use crate::forward_error::ForwardError;
use crate::language_model::{Backend, LanguageModel};
#[cfg(any(feature = "cuda", feature = "emulated"))]
use crate::language_model::{answer, lock, parts};
use crate::row::{Answer, Row};

impl LanguageModel {
    /// The first half of [`LanguageModel::answer`] on a device: has it begin, and does not wait. The states are those after the
    /// call at once, and may be used in the next one, but are worth nothing if [`LanguageModel::collect`] fails. Two calls may
    /// be under way, so that a device computes one while the host takes in what it has found in the other.
    ///
    /// False where nothing has happened and the call is for [`LanguageModel::answer`], once those under way are collected: on
    /// the CPU, beside two calls under way, or where it is too large for what a device shares with its host.
    ///
    /// # Errors
    /// As [`LanguageModel::answer`].
    ///
    /// # Panics
    /// There is not one reduction for each row.
    pub fn submit(&self, rows: &mut [Row<'_>], reductions: &[Reduction<'_>]) -> Result<bool, ForwardError> {
        self.check_rows(rows, reductions)?;
        match &self.backend {
            Backend::Engine(_) => Ok(false),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => lock(engine).submit(&mut parts(rows, reductions)),
        }
    }

    /// Waits until the device has computed all that was submitted; whole rows may still be on their way to the host.
    ///
    /// # Errors
    /// The device fails.
    pub fn wait(&self) -> Result<(), ForwardError> {
        match &self.backend {
            Backend::Engine(_) => Ok(()),
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => lock(engine).wait(),
        }
    }

    /// The second half: waits for the oldest call that was submitted, and hands over what it has found, in order within a row.
    /// That call is over then, whatever becomes of it.
    ///
    /// # Errors
    /// There is none, or the device fails: then the call's states are worth nothing, nor are those of calls that went on from
    /// them.
    pub fn collect(&self, receive: &mut dyn FnMut(Answer<'_>)) -> Result<(), ForwardError> {
        match &self.backend {
            Backend::Engine(_) => {
                let _ = receive;
                Err(ForwardError::NothingSubmitted)
            }
            #[cfg(any(feature = "cuda", feature = "emulated"))]
            Backend::Device(engine) => lock(engine).collect(&mut |found| receive(answer(found))),
        }
    }
}
