//! What is counted of admission, as metrics.
//!
//! Knows nothing about how it is decided.

use std::fmt;
use std::time::Duration;

use metrics::Unit;

use super::line::Standing;
use super::refusal::Refusal;

const IN_PROGRESS: &str = "chorus_requests_in_progress";
const TOKENS: &str = "chorus_tokens_in_progress";
const WAITING: &str = "chorus_requests_waiting";
const WAIT: &str = "chorus_request_wait_seconds";
const REFUSED: &str = "chorus_requests_refused_total";

/// The metrics, which go to whatever recorder is installed when they are made.
pub(super) struct Counted {
    in_progress: metrics::Gauge,
    tokens: metrics::Gauge,
    waiting: metrics::Gauge,
    wait: metrics::Histogram,
    refused: [metrics::Counter; Refusal::ALL.len()],
}

impl Counted {
    pub(super) fn new() -> Self {
        metrics::describe_gauge!(IN_PROGRESS, Unit::Count, "Requests in progress");
        metrics::describe_gauge!(
            TOKENS,
            Unit::Count,
            "Tokens that the requests in progress take at the most"
        );
        metrics::describe_gauge!(WAITING, Unit::Count, "Requests in line for a place");
        metrics::describe_histogram!(WAIT, Unit::Seconds, "What admitted requests waited for their place");
        metrics::describe_counter!(REFUSED, Unit::Count, "Requests that were turned away, by reason");
        Self {
            in_progress: metrics::gauge!(IN_PROGRESS),
            tokens: metrics::gauge!(TOKENS),
            waiting: metrics::gauge!(WAITING),
            wait: metrics::histogram!(WAIT),
            refused: Refusal::ALL.map(|refusal| metrics::counter!(REFUSED, "reason" => refusal.name())),
        }
    }

    pub(super) fn standing(&self, standing: Standing) {
        self.in_progress.set(standing.running as f64);
        self.tokens.set(standing.tokens as f64);
        self.waiting.set(standing.waiting as f64);
    }

    pub(super) fn admitted(&self, waited: Duration) {
        self.wait.record(waited.as_secs_f64());
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let counters = Refusal::ALL.into_iter().zip(&self.refused);
        counters.filter(|(of, _)| *of == refusal).for_each(|(_, counter)| counter.increment(1));
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Counted")
    }
}
