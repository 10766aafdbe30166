//! A number that can be read here, and the same one as a metric, which can't. Knows nothing about what is counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Only grows.
pub(crate) struct Counter {
    value: AtomicU64,
    metric: metrics::Counter,
}

impl Counter {
    pub(crate) fn new(metric: metrics::Counter) -> Self {
        Self { value: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self, count: u64) {
        if count > 0 {
            self.value.fetch_add(count, Ordering::Relaxed);
            self.metric.increment(count);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.get())
    }
}
