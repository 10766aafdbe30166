//! What is measured about calls, and how it is counted. Time is an argument; knows nothing about clocks, sockets or threads.
//!
//! Three decisions are made here, and only here:
//! - A latency begins at the moment at which the call *should* have started. A call that could not be sent in time
//!   because the server (or this program) stalled has waited, whoever held it up.
//! - Every gap between two tokens is a value of its own. A percentile of the mean gaps of whole answers would hide a
//!   stall in the middle of one.
//! - What belongs to the measurement: calls that should have started in the window, for latencies, errors and degraded
//!   answers; what came in the window, for throughput. Warm-up is neither.

mod latencies;
mod measurements;
mod timeline;
mod watch;

use std::time::Duration;

use tonic::Code;

pub use latencies::{Latencies, Quantile};
pub use measurements::{CallCounts, Errors, Measurements, Volume};
pub use timeline::{Slice, Timeline};
pub use watch::Watch;

/// The time that is measured, as times since the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The end of the warm-up.
    pub from: Duration,
    /// When no call starts any more.
    pub until: Duration,
}

/// What a call that succeeded was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// Tokens that were read before the first answered one; 0 for a scoring.
    pub prompt_tokens: u32,
    /// Tokens that were scored; 0 for a generation.
    pub scored_tokens: u32,
    /// Tokens that were generated and came with the whole answer; 0 for a stream, whose tokens are counted as they come.
    pub generated_tokens: u32,
    /// A member was missing from all or a part of it.
    pub degraded: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code of its gRPC status.
    pub code: Code,
    /// What the server, or the transport, says about it.
    pub message: String,
}

impl Window {
    /// Whether a moment is measured.
    #[must_use]
    pub fn contains(self, moment: Duration) -> bool {
        (self.from..self.until).contains(&moment)
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}
