//! [`Traffic`]: what goes over one member's link, counted for each plan.
//!
//! Knows nothing about frames or about what is asked.

use metrics::Unit;

use crate::counter::Counter;
use crate::plan::PlanKind;
use crate::telemetry::LinkMetrics;

/// Counts of one link since the process started: for Status, and as metrics.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// What is counted of the link itself.
    pub(crate) link: LinkMetrics,
    plans: [Counters; PlanKind::ALL.len()],
}

#[derive(Debug)]
struct Counters {
    sent: Counter,
    received: Counter,
    tokens: Counter,
    rows: Counter,
}

/// The names of the metrics.
const SENT: &str = "chorus_member_sent_bytes_total";
const RECEIVED: &str = "chorus_member_received_bytes_total";
const TOKENS: &str = "chorus_member_tokens_total";
const ROWS: &str = "chorus_member_output_rows_total";

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

impl TrafficCounts {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            tokens: self.tokens + other.tokens,
            rows: self.rows + other.rows,
        }
    }
}

impl Traffic {
    /// Counts of the link to the member of this name. As metrics they go to whatever recorder is installed now.
    pub(crate) fn new(member: &str) -> Self {
        metrics::describe_counter!(SENT, Unit::Bytes, "Bytes of operations sent to a member");
        metrics::describe_counter!(RECEIVED, Unit::Bytes, "Bytes of answers received from a member");
        metrics::describe_counter!(TOKENS, Unit::Count, "Tokens fed to a member");
        metrics::describe_counter!(ROWS, Unit::Count, "Rows of its output layer that a member was asked for");
        Self { link: LinkMetrics::new(member), plans: PlanKind::ALL.map(|plan| Counters::new(member, plan)) }
    }

    /// Adds what went over the link.
    pub(crate) fn add(&self, plan: PlanKind, counts: TrafficCounts) {
        let counters = self.of(plan);
        counters.sent.add(counts.sent);
        counters.received.add(counts.received);
        counters.tokens.add(counts.tokens);
        counters.rows.add(counts.rows);
    }

    /// The counts of a plan.
    pub(crate) fn counts(&self, plan: PlanKind) -> TrafficCounts {
        let counters = self.of(plan);
        TrafficCounts {
            sent: counters.sent.get(),
            received: counters.received.get(),
            tokens: counters.tokens.get(),
            rows: counters.rows.get(),
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

impl Counters {
    fn new(member: &str, plan: PlanKind) -> Self {
        let counter = |name: &'static str| {
            let labels = [("member", member.to_owned()), ("plan", plan.name().to_owned())];
            Counter::new(metrics::counter!(name, &labels))
        };
        Self {
            sent: counter(SENT),
            received: counter(RECEIVED),
            tokens: counter(TOKENS),
            rows: counter(ROWS),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_plan_has_its_own_counts_and_metrics() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let traffic = metrics::with_local_recorder(&recorder, || Traffic::new("alto"));
        let counts = TrafficCounts { sent: 1, received: 20, tokens: 300, rows: 4000 };
        for (times, plan) in (1..).zip(PlanKind::ALL) {
            (0..times).for_each(|_| traffic.add(plan, counts));
        }
        let rendered = recorder.handle().render();
        for (times, plan) in (1..).zip(PlanKind::ALL) {
            let expected =
                TrafficCounts { sent: times, received: 20 * times, tokens: 300 * times, rows: 4000 * times };
            assert_eq!(traffic.counts(plan), expected);
            for (name, value) in
                [(SENT, times), (RECEIVED, 20 * times), (TOKENS, 300 * times), (ROWS, 4000 * times)]
            {
                let line = format!("{name}{{member=\"alto\",plan=\"{plan}\"}} {value}");
                assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
            }
        }
    }
}
