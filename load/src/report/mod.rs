//! What a run gave, in the units and under the keys in which people and programs read it. The keys are an interface.
//!
//! Knows nothing about how it is printed or drawn.

mod cautions;
mod conversion;

#[cfg(test)]
pub(crate) mod tests;

use serde::Serialize;

pub use conversion::code_name;

/// A whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Who called.
    pub load: LoadReport,
    /// Seconds before anything was measured.
    pub warm_up_seconds: f64,
    /// Seconds that were measured.
    pub measured_seconds: f64,
    /// The run was stopped before its time.
    pub interrupted: bool,
    /// Calls that should have started in the measured time.
    pub calls: CallsReport,
    /// Failures by gRPC code, the most frequent first.
    pub errors: Vec<ErrorReport>,
    /// What came in the measured time, for each second of it.
    pub per_second: Throughput,
    /// Latencies of those calls.
    pub latency_ms: LatencyReports,
    /// What this program itself cost, and by how much it was late.
    pub client: ClientReport,
    /// Throughput over time.
    pub timeline: Vec<SliceReport>,
    /// Every distribution, as points by percentile: what a picture is drawn from.
    #[serde(skip)]
    pub curves: Vec<Curve>,
}

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LoadReport {
    /// Callers who wait for an answer before asking again.
    Closed {
        /// How many.
        concurrency: usize,
    },
    /// Poisson arrivals.
    Open {
        /// Calls a second that should have been made.
        rate: f64,
        /// Calls in flight at most.
        most_in_flight: usize,
    },
}

/// What became of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CallsReport {
    /// Made.
    pub sent: u64,
    /// With a whole answer.
    pub answered: u64,
    /// Failed.
    pub failed: u64,
    /// Without an end when the run was over.
    pub unfinished: u64,
    /// Not made, since too many were in flight.
    pub not_sent: u64,
    /// Of the answered ones: without some member.
    pub degraded: u64,
}

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// As gRPC writes it: `UNAVAILABLE`.
    pub code: String,
    /// How many.
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

/// What came in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Throughput {
    /// Whole answers.
    pub answers: f64,
    /// Tokens that were generated.
    pub generated_tokens: f64,
    /// Tokens that were scored.
    pub scored_tokens: f64,
    /// Tokens of prompts that were continued.
    pub prompt_tokens: f64,
}

/// The four latencies; one that has no value is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyReports {
    /// From the intended start of a generation to its first token.
    pub first_token: Option<LatencyReport>,
    /// Between two tokens of an answer, every gap by itself.
    pub inter_token: Option<LatencyReport>,
    /// From the intended start of a generation to its end.
    pub generate: Option<LatencyReport>,
    /// From the intended start of a scoring to its end.
    pub score: Option<LatencyReport>,
}

/// One distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyReport {
    /// Number of values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are not above it.
    pub p90: f64,
    /// Nineteen of twenty.
    pub p95: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// What the load test itself cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClientReport {
    /// Threads that called.
    pub threads: usize,
    /// Connections over all of them.
    pub connections: usize,
    /// Seconds of processor time, warm-up and drain included.
    pub cpu_seconds: f64,
    /// Microseconds of it for each token that came.
    pub cpu_us_per_token: Option<f64>,
    /// Share of its time that the busiest thread computed.
    pub busiest_thread: f64,
    /// From the intended start of a call to the moment at which it was made, 99th percentile in milliseconds.
    pub sent_late_ms_p99: f64,
}

/// One slice of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SliceReport {
    /// Its beginning, in seconds of the measured time.
    pub second: f64,
    /// Answers a second.
    pub answers_per_second: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Failures a second.
    pub errors_per_second: f64,
}

/// A distribution by percentile.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is of.
    pub name: &'static str,
    /// (share of values, milliseconds), the share growing from 0 to 1.
    pub points: Vec<(f64, f64)>,
}
