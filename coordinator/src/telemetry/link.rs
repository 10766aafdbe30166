//! What is counted of one link to a replica, as metrics by member: replicas of a member add up.
//!
//! Knows nothing about how links are kept.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Unit;

const REPLICAS: &str = "chorus_member_replicas";
const UP: &str = "chorus_member_replicas_up";
const CONNECTS: &str = "chorus_member_connects_total";
const LOST: &str = "chorus_member_links_lost_total";
const IN_FLIGHT: &str = "chorus_member_feeds_in_flight";
const SNAPSHOTS: &str = "chorus_member_snapshot_bytes";

/// Why a stream ended without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// What it carried can't be trusted.
    BrokeProtocol,
    /// It does not read, or it does not answer.
    Hung,
    /// Nothing comes any more.
    Silent,
    /// The worker ended it.
    Ended,
    /// The connection broke.
    Broken,
}

/// The metrics of one link, which go to whatever recorder is installed when they are made.
pub(crate) struct LinkMetrics {
    replicas: metrics::Gauge,
    up: metrics::Gauge,
    is_up: AtomicBool,
    connects: metrics::Counter,
    lost: [metrics::Counter; Lost::ALL.len()],
    in_flight: metrics::Gauge,
    snapshots: metrics::Histogram,
}

impl Lost {
    const ALL: [Self; 5] = [Self::BrokeProtocol, Self::Hung, Self::Silent, Self::Ended, Self::Broken];

    fn name(self) -> &'static str {
        match self {
            Self::BrokeProtocol => "broke_protocol",
            Self::Hung => "hung",
            Self::Silent => "silent",
            Self::Ended => "ended",
            Self::Broken => "broken",
        }
    }
}

impl LinkMetrics {
    /// Of a link to a replica of the member of this name, which is not up yet.
    pub(crate) fn new(member: &str) -> Self {
        describe();
        let label = || member.to_owned();
        let replicas = metrics::gauge!(REPLICAS, "member" => label());
        replicas.increment(1.0);
        Self {
            replicas,
            up: metrics::gauge!(UP, "member" => label()),
            is_up: AtomicBool::new(false),
            connects: metrics::counter!(CONNECTS, "member" => label()),
            lost: Lost::ALL.map(|lost| metrics::counter!(LOST, "member" => label(), "reason" => lost.name())),
            in_flight: metrics::gauge!(IN_FLIGHT, "member" => label()),
            snapshots: metrics::histogram!(SNAPSHOTS, "member" => label()),
        }
    }

    /// Whether it can be asked now.
    pub(crate) fn set_up(&self, is_up: bool) {
        if self.is_up.swap(is_up, Ordering::Relaxed) != is_up {
            self.up.increment(if is_up { 1.0 } else { -1.0 });
        }
    }

    /// A stream was begun.
    pub(crate) fn connected(&self) {
        self.connects.increment(1);
    }

    /// A stream ended without being told to.
    pub(crate) fn lost(&self, lost: Lost) {
        let counters = Lost::ALL.into_iter().zip(&self.lost);
        counters.filter(|(of, _)| *of == lost).for_each(|(_, counter)| counter.increment(1));
    }

    /// One more feed waits for its answer.
    pub(crate) fn asked(&self) {
        self.in_flight.increment(1.0);
    }

    /// A feed waits no longer.
    pub(crate) fn settled(&self) {
        self.in_flight.decrement(1.0);
    }

    /// A snapshot of so many bytes came.
    pub(crate) fn snapshot(&self, bytes: usize) {
        self.snapshots.record(bytes as f64);
    }
}

fn describe() {
    metrics::describe_gauge!(REPLICAS, Unit::Count, "Replicas of a member that are known");
    metrics::describe_gauge!(UP, Unit::Count, "Replicas of a member that are up");
    metrics::describe_counter!(CONNECTS, Unit::Count, "Streams to a member's replicas that were begun");
    metrics::describe_counter!(LOST, Unit::Count, "Streams to a member's replicas that were lost, by reason");
    metrics::describe_gauge!(IN_FLIGHT, Unit::Count, "Feeds of a member that wait for an answer");
    metrics::describe_histogram!(SNAPSHOTS, Unit::Bytes, "Snapshots of sessions that a member sent");
}

impl Drop for LinkMetrics {
    fn drop(&mut self) {
        self.set_up(false);
        self.replicas.decrement(1.0);
    }
}

impl fmt::Debug for LinkMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LinkMetrics")
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn replicas_of_a_member_add_up_and_one_that_is_gone_is_none() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = |line: &str| {
            let rendered = recorder.handle().render();
            assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
        };
        metrics::with_local_recorder(&recorder, || {
            let (one, other) = (LinkMetrics::new("alto"), LinkMetrics::new("alto"));
            [&one, &one, &other].into_iter().for_each(|link| link.set_up(true));
            rendered("chorus_member_replicas{member=\"alto\"} 2");
            rendered("chorus_member_replicas_up{member=\"alto\"} 2");
            one.set_up(false);
            rendered("chorus_member_replicas_up{member=\"alto\"} 1");
            drop(other);
            rendered("chorus_member_replicas{member=\"alto\"} 1");
            rendered("chorus_member_replicas_up{member=\"alto\"} 0");
            one.lost(Lost::Hung);
            rendered("chorus_member_links_lost_total{member=\"alto\",reason=\"hung\"} 1");
            rendered("chorus_member_links_lost_total{member=\"alto\",reason=\"silent\"} 0");
        });
    }
}
