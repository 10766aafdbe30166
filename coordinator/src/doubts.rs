//! [`Doubts`]: how often any worker was found to be wrong. Knows nothing about what follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts answers that were none, and devices that turned out not to be sound: what such a worker made of sessions before may be
/// wrong, too, wherever it is now. Only grows. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubts(Arc<AtomicU64>);

impl Doubts {
    /// A worker was found to be wrong.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
