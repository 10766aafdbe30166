//! [`Statistics`]: how many requests of each model were answered, and how long that took.
//!
//! Knows nothing about what they were.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::catalogue::{Model, VERSION};
use crate::pb::{InferStatistics, ModelStatistics, StatisticDuration};

/// Counts by model, since the process started. Models are those that there were at any time, so they are few.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    counts: Mutex<BTreeMap<String, Counts>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    success: StatisticDuration,
    fail: StatisticDuration,
    elements: u64,
    last: u64,
}

impl Statistics {
    /// One more request of a model, of so many elements.
    pub(crate) fn record(&self, model: &Model, elements: usize, took: Duration, succeeded: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.entry(model.name.clone()).or_default();
        let duration = if succeeded { &mut counts.success } else { &mut counts.fail };
        duration.count += 1;
        duration.ns = duration.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if succeeded {
            counts.elements += elements as u64;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            counts.last = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        }
    }

    /// Of a model, in Triton's words. What is not measured has the same count and no time, so that averages add up.
    pub(crate) fn of(&self, model: &Model) -> ModelStatistics {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.get(&model.name).copied().unwrap_or_default();
        let unmeasured = Some(StatisticDuration { count: counts.success.count, ns: 0 });
        ModelStatistics {
            name: model.name.clone(),
            version: VERSION.to_owned(),
            last_inference: counts.last,
            inference_count: counts.elements,
            execution_count: counts.success.count,
            inference_stats: Some(InferStatistics {
                success: Some(counts.success),
                fail: Some(counts.fail),
                queue: unmeasured,
                compute_input: unmeasured,
                compute_infer: Some(counts.success),
                compute_output: unmeasured,
                cache_hit: Some(StatisticDuration::default()),
                cache_miss: Some(StatisticDuration::default()),
            }),
        }
    }
}
