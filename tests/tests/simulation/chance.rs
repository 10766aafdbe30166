//! Chance and time of the whole process, from a seed: what libraries draw for themselves (where a `select!` looks first, the
//! keys of a map) and what they read from the system's clock is a part of a history as well.
//!
//! Knows nothing about what a history is.

use std::{panic::resume_unwind, thread};

use mad_turmoil::{
    rand::{get_rng, set_rng, try_rng},
    time::SimClocksGuard,
};
use rand::{SeedableRng as _, rngs::StdRng};

/// Runs what is given with all chance drawn from the seed, on a thread of its own, where nothing was drawn before.
///
/// The runtime also counts its own beginnings in a process, so only the first call is the same in every process.
pub(crate) fn with_seed<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> T {
    let random = StdRng::seed_from_u64(seed);
    if try_rng().is_none() {
        set_rng(random);
    } else {
        *get_rng() = random;
    }
    let _clocks = SimClocksGuard::init();
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
