//! Counters of a run that is in progress. Knows nothing about what is measured: these are for whoever watches.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What has come so far, warm-up included.
#[derive(Debug, Default)]
pub struct Live {
    tokens: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    /// Who else is told.
    all: Option<Arc<Live>>,
}

impl Live {
    /// Tokens that were generated or scored.
    pub fn token_count(&self) -> u64 {
        self.tokens.load(Relaxed)
    }

    /// Calls with a whole answer.
    pub fn answered_count(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Calls that failed.
    pub fn failed_count(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// The counters of one thread, which tell `all` too.
    pub(crate) fn of(all: &Arc<Self>) -> Self {
        Self { all: Some(Arc::clone(all)), ..Self::default() }
    }

    pub(crate) fn tokens(&self, count: u64) {
        self.count(|live| &live.tokens, count);
    }

    pub(crate) fn answered(&self, scored_tokens: u32) {
        self.count(|live| &live.answered, 1);
        self.tokens(scored_tokens.into());
    }

    pub(crate) fn failed(&self) {
        self.count(|live| &live.failed, 1);
    }

    fn count(&self, counter: fn(&Self) -> &AtomicU64, more: u64) {
        counter(self).fetch_add(more, Relaxed);
        if let Some(all) = &self.all {
            counter(all).fetch_add(more, Relaxed);
        }
    }
}
