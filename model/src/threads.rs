//! The process's one pool of threads that compute. Knows nothing about what they compute.

use std::num::NonZeroUsize;

use thiserror::Error;

/// Why the pool can't have the size that was asked for.
#[derive(Debug, Error)]
#[error("can't have {threads} threads that compute")]
pub struct ThreadsError {
    threads: NonZeroUsize,
    source: rayon::ThreadPoolBuildError,
}

/// Sets the size of the pool, once and before anything computes; otherwise it has a thread for each processor. Products
/// that are too small to share stay on the thread that asks for them.
///
/// # Errors
/// The system has no threads for it, or the pool has begun.
pub fn use_threads(threads: NonZeroUsize) -> Result<(), ThreadsError> {
    let name = |index| format!("chorus-compute-{index}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).thread_name(name);
    pool.build_global().map_err(|source| ThreadsError { threads, source })
}
