//! [`Traffic`]: what goes over one member's link, counted for each plan.
//!
//! Knows nothing about frames or about what is asked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::PlanKind;

/// Counts of one link since the process started.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    plans: [Counters; PlanKind::ALL.len()],
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    tokens: AtomicU64,
    rows: AtomicU64,
}

/// What has gone over a link for one plan, or what goes over it with one feed. Bytes are those of the operations and answers
/// as they are encoded, without the framing that they share with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Bytes to the member.
    pub sent: u64,
    /// Bytes from the member.
    pub received: u64,
    /// Tokens that were fed.
    pub tokens: u64,
    /// Rows of the output layer that were asked for.
    pub rows: u64,
}

impl Traffic {
    /// Adds what went over the link.
    pub(crate) fn add(&self, plan: PlanKind, counts: TrafficCounts) {
        let counters = self.of(plan);
        counters.sent.fetch_add(counts.sent, Ordering::Relaxed);
        counters.received.fetch_add(counts.received, Ordering::Relaxed);
        counters.tokens.fetch_add(counts.tokens, Ordering::Relaxed);
        counters.rows.fetch_add(counts.rows, Ordering::Relaxed);
    }

    /// The counts of a plan.
    pub(crate) fn counts(&self, plan: PlanKind) -> TrafficCounts {
        let counters = self.of(plan);
        TrafficCounts {
            sent: counters.sent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            tokens: counters.tokens.load(Ordering::Relaxed),
            rows: counters.rows.load(Ordering::Relaxed),
        }
    }

    fn of(&self, plan: PlanKind) -> &Counters {
        let [dense, targets, certified, drawn] = &self.plans;
        match plan {
            PlanKind::Dense => dense,
            PlanKind::Targets => targets,
            PlanKind::Certified => certified,
            PlanKind::Drawn => drawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_its_own_counts() {
        let traffic = Traffic::default();
        for (times, plan) in (1..).zip(PlanKind::ALL) {
            let counts = TrafficCounts { sent: 1, received: 20, tokens: 300, rows: 4000 };
            (0..times).for_each(|_| traffic.add(plan, counts));
        }
        for (times, plan) in (1..).zip(PlanKind::ALL) {
            let expected =
                TrafficCounts { sent: times, received: 20 * times, tokens: 300 * times, rows: 4000 * times };
            assert_eq!(traffic.counts(plan), expected);
        }
    }
}
