//! What operators see of a running worker, as metrics: they go to whatever recorder is installed when they are made.
//!
//! Knows nothing about who collects. Every handle is made once: to count costs an atomic addition, or nothing at all where nobody
//! collects.

use std::{fmt, sync::Arc, time::Duration};

use chorus_proto::v1::{ErrorCode, ModelCard};
use metrics::{Counter, Gauge, Histogram, Unit};

use crate::operation::Ask;

const BUILD: &str = "chorus_build_info";
const MODEL: &str = "chorus_worker_model_info";
const SOUND: &str = "chorus_worker_device_sound";
const PROBES: &str = "chorus_worker_probes_total";
const STREAMS: &str = "chorus_worker_streams";
const SESSIONS: &str = "chorus_worker_sessions";
const SESSIONS_LIMIT: &str = "chorus_worker_sessions_limit";
const DEVICE_MEMORY: &str = "chorus_worker_device_memory_bytes";
const FEEDS: &str = "chorus_worker_feeds_total";
const WAITING: &str = "chorus_worker_feeds_waiting";
const WAIT: &str = "chorus_worker_feed_wait_seconds";
const FORWARD: &str = "chorus_worker_forward_seconds";
const EARLY: &str = "chorus_worker_early_seconds";
const ROWS: &str = "chorus_worker_batch_rows";
const BATCH_TOKENS: &str = "chorus_worker_batch_tokens";
const TOKENS: &str = "chorus_worker_tokens_total";
const FAILURES: &str = "chorus_worker_failures_total";
const REMEMBERED: &str = "chorus_worker_remembered_bytes";
const SNAPSHOTS: &str = "chorus_worker_snapshot_bytes";
const RECEIVED: &str = "chorus_worker_received_bytes_total";
const SENT: &str = "chorus_worker_sent_bytes_total";

const ASKS: [&str; 6] = ["nothing", "logits", "targets", "top", "ids", "draw"];

/// Codes of failures, as labels.
const CODES: [(ErrorCode, &str); 10] = [
    (ErrorCode::InvalidArgument, "invalid_argument"),
    (ErrorCode::UnknownSession, "unknown_session"),
    (ErrorCode::StepOutOfOrder, "step_out_of_order"),
    (ErrorCode::ResourceExhausted, "resource_exhausted"),
    (ErrorCode::Unavailable, "unavailable"),
    (ErrorCode::DeadlineExceeded, "deadline_exceeded"),
    (ErrorCode::Cancelled, "cancelled"),
    (ErrorCode::NotFinite, "not_finite"),
    (ErrorCode::FailedPrecondition, "failed_precondition"),
    (ErrorCode::Internal, "internal"),
];

/// What the engine counts.
pub(crate) struct EngineMetrics {
    probes_passed: Counter,
    probes_failed: Counter,
    sessions: Gauge,
    feeds: [Counter; ASKS.len()],
    waiting: Gauge,
    wait: Histogram,
    forward: Histogram,
    early: Histogram,
    rows: Histogram,
    batch_tokens: Histogram,
    tokens: Counter,
    remembered: Gauge,
    snapshots: Histogram,
    /// Of the forward that ran last.
    last_rows: usize,
}

/// What is counted of all streams together.
#[derive(Clone)]
pub(crate) struct StreamMetrics(Arc<OfStreams>);

struct OfStreams {
    streams: Gauge,
    failures: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
}

/// A stream that is attached, for as long as it is.
pub(crate) struct Attached(StreamMetrics);

/// Says what this process hosts, within which limit of sessions.
pub(crate) fn describe(card: &ModelCard, max_sessions: u32) {
    metrics::describe_gauge!(BUILD, Unit::Count, "1, with the version of the program");
    metrics::describe_gauge!(MODEL, Unit::Count, "1, with the model that is hosted and its device");
    metrics::describe_gauge!(SESSIONS_LIMIT, Unit::Count, "Sessions that are held at a time, at most");
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let labels = [
        ("model", card.name.clone()),
        ("architecture", card.architecture.clone()),
        ("device", card.device.clone()),
    ];
    metrics::gauge!(MODEL, &labels).set(1.0);
    metrics::gauge!(SESSIONS_LIMIT).set(f64::from(max_sessions));
}

/// Says what the model takes of its device's memory, in bytes of each part.
pub(crate) fn device_memory(parts: &[(&'static str, u64)]) {
    metrics::describe_gauge!(DEVICE_MEMORY, Unit::Bytes, "Memory of the device that the model takes");
    for &(part, bytes) in parts {
        metrics::gauge!(DEVICE_MEMORY, "part" => part).set(bytes as f64);
    }
}

/// Whether what the device computes can be relied on, as it is known now.
pub(crate) fn device_is_sound() -> impl Fn(bool) {
    metrics::describe_gauge!(SOUND, "1 while what the device computes can be relied on, else 0");
    let gauge = metrics::gauge!(SOUND);
    move |is_sound| gauge.set(f64::from(is_sound))
}

impl EngineMetrics {
    pub(crate) fn new() -> Self {
        describe_engine();
        let probes = |outcome: &'static str| metrics::counter!(PROBES, "outcome" => outcome);
        Self {
            probes_passed: probes("passed"),
            probes_failed: probes("failed"),
            sessions: metrics::gauge!(SESSIONS),
            feeds: ASKS.map(|ask| metrics::counter!(FEEDS, "ask" => ask)),
            waiting: metrics::gauge!(WAITING),
            wait: metrics::histogram!(WAIT),
            forward: metrics::histogram!(FORWARD),
            early: metrics::histogram!(EARLY),
            rows: metrics::histogram!(ROWS),
            batch_tokens: metrics::histogram!(BATCH_TOKENS),
            tokens: metrics::counter!(TOKENS),
            remembered: metrics::gauge!(REMEMBERED),
            snapshots: metrics::histogram!(SNAPSHOTS),
            last_rows: 0,
        }
    }

    /// A probe was run.
    pub(crate) fn probed(&self, passed: bool) {
        let counter = if passed { &self.probes_passed } else { &self.probes_failed };
        counter.increment(1);
    }

    /// How things stand after an operation or a forward: open sessions, feeds that wait, bytes of answers that are kept.
    pub(crate) fn standing(&self, sessions: usize, waiting: usize, remembered: usize) {
        self.sessions.set(sessions as f64);
        self.waiting.set(waiting as f64);
        self.remembered.set(remembered as f64);
    }

    /// A feed was taken in.
    pub(crate) fn fed(&self, ask: &Ask) {
        let [nothing, logits, targets, top, ids, draw] = &self.feeds;
        let counter = match ask {
            Ask::Nothing => nothing,
            Ask::Logits { .. } => logits,
            Ask::Targets => targets,
            Ask::Top { .. } => top,
            Ask::Ids(_) => ids,
            Ask::Draw { .. } => draw,
        };
        counter.increment(1);
    }

    /// A feed is in a forward for the first time, so long after it was read.
    pub(crate) fn waited(&self, wait: Duration) {
        self.wait.record(wait.as_secs_f64());
    }

    /// A forward of so many sessions and tokens is to run.
    pub(crate) fn batch(&mut self, rows: usize, tokens: usize) {
        self.last_rows = rows;
        if rows > 0 {
            self.rows.record(rows as f64);
            self.batch_tokens.record(tokens as f64);
            self.tokens.increment(tokens as u64);
        }
    }

    /// It took so long.
    pub(crate) fn ran(&self, took: Duration) {
        if self.last_rows > 0 {
            self.forward.record(took.as_secs_f64());
        }
    }

    /// A part of the next forward was computed early.
    pub(crate) fn computed_early(&self, took: Duration) {
        self.early.record(took.as_secs_f64());
    }

    /// A snapshot was made.
    pub(crate) fn snapshot(&self, bytes: usize) {
        self.snapshots.record(bytes as f64);
    }
}

impl StreamMetrics {
    pub(crate) fn new() -> Self {
        describe_streams();
        Self(Arc::new(OfStreams {
            streams: metrics::gauge!(STREAMS),
            failures: CODES.map(|(_, code)| metrics::counter!(FAILURES, "code" => code)),
            received: metrics::counter!(RECEIVED),
            sent: metrics::counter!(SENT),
        }))
    }

    /// One more stream.
    pub(crate) fn attach(&self) -> Attached {
        self.0.streams.increment(1.0);
        Attached(self.clone())
    }

    /// An operation of so many bytes was read.
    pub(crate) fn received(&self, bytes: usize) {
        self.0.received.increment(bytes as u64);
    }

    /// Answers of so many bytes go out.
    pub(crate) fn sent(&self, bytes: usize) {
        self.0.sent.increment(bytes as u64);
    }

    /// A failure goes out.
    pub(crate) fn failed(&self, code: ErrorCode) {
        let counters = CODES.iter().zip(&self.0.failures);
        counters.filter(|((of, _), _)| *of == code).for_each(|(_, counter)| counter.increment(1));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.0.streams.decrement(1.0);
    }
}

fn describe_engine() {
    metrics::describe_counter!(PROBES, Unit::Count, "Golden sequences that the device computed, by outcome");
    metrics::describe_gauge!(SESSIONS, Unit::Count, "Sessions that are open");
    metrics::describe_counter!(FEEDS, Unit::Count, "Feeds that were taken in, by what they ask");
    metrics::describe_gauge!(
        WAITING,
        Unit::Count,
        "Feeds that wait for a forward, or for the rest of theirs"
    );
    metrics::describe_histogram!(
        WAIT,
        Unit::Seconds,
        "From when a feed was read to the first forward that it is in"
    );
    metrics::describe_histogram!(
        FORWARD,
        Unit::Seconds,
        "One forward; on the CPU with the answers that come of it, on a GPU beside those of the one before"
    );
    metrics::describe_histogram!(
        EARLY,
        Unit::Seconds,
        "A part of the next forward that is computed before it is asked for, while nobody waits"
    );
    metrics::describe_histogram!(ROWS, Unit::Count, "Sessions in one forward");
    metrics::describe_histogram!(BATCH_TOKENS, Unit::Count, "Tokens in one forward");
    metrics::describe_counter!(TOKENS, Unit::Count, "Tokens that were computed");
    metrics::describe_gauge!(
        REMEMBERED,
        Unit::Bytes,
        "Answers that are kept in case that a step is repeated"
    );
    metrics::describe_histogram!(SNAPSHOTS, Unit::Bytes, "Snapshots of sessions that were made");
}

fn describe_streams() {
    metrics::describe_gauge!(STREAMS, Unit::Count, "Streams that are attached: one for each coordinator");
    metrics::describe_counter!(
        FAILURES,
        Unit::Count,
        "Operations that were answered with a failure, by code"
    );
    metrics::describe_counter!(RECEIVED, Unit::Bytes, "Operations that were read, as they are encoded");
    metrics::describe_counter!(SENT, Unit::Bytes, "Answers and handovers that went out, as they are encoded");
}

impl fmt::Debug for EngineMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EngineMetrics")
    }
}

impl fmt::Debug for StreamMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StreamMetrics")
    }
}
