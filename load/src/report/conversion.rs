//! A report of what was measured. Knows nothing about what its figures mean to a reader.

use std::time::Duration;

use tonic::Code;

use super::{
    CallsReport, ClientReport, Curve, ErrorReport, LatencyReport, LatencyReports, LoadReport, Report,
    SliceReport, Throughput,
};
use crate::{
    measure::{Latencies, Measurements},
    run::{Load, Plan, RunResult},
};

impl Report {
    /// Of a run.
    #[must_use]
    pub fn new(plan: &Plan, result: &RunResult) -> Self {
        let measurements = &result.measurements;
        Self {
            load: match plan.load {
                Load::Closed { concurrency } => LoadReport::Closed { concurrency },
                Load::Open { rate, most_in_flight } => LoadReport::Open { rate, most_in_flight },
            },
            warm_up_seconds: plan.window.from.as_secs_f64(),
            measured_seconds: result.measured.as_secs_f64(),
            interrupted: result.interrupted,
            calls: calls(measurements),
            errors: errors(measurements),
            per_second: throughput(measurements, result.measured),
            latency_ms: latencies(measurements),
            client: ClientReport {
                threads: plan.threads,
                connections: plan.connections,
                cpu_seconds: result.client.cpu.as_secs_f64(),
                cpu_us_per_token: result.client.microseconds_per_token(),
                busiest_thread: result.client.busiest,
                sent_late_ms_p99: milliseconds(measurements.sent_late.at(0.99)),
            },
            timeline: timeline(measurements, result.measured),
            curves: curves(measurements),
        }
    }
}

impl LatencyReport {
    /// Of a histogram; none of an empty one.
    #[must_use]
    pub fn of(latencies: &Latencies) -> Option<Self> {
        let at = |share| milliseconds(latencies.at(share));
        (!latencies.is_empty()).then(|| Self {
            count: latencies.len(),
            mean: milliseconds(latencies.mean()),
            min: milliseconds(latencies.min()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(latencies.max()),
        })
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn calls(measurements: &Measurements) -> CallsReport {
    let calls = measurements.calls;
    CallsReport {
        sent: calls.sent,
        answered: calls.answered,
        failed: calls.failed,
        unfinished: calls.unfinished(),
        not_sent: calls.not_sent,
        degraded: calls.degraded,
    }
}

fn errors(measurements: &Measurements) -> Vec<ErrorReport> {
    let errors = measurements.errors.iter();
    let mut errors: Vec<ErrorReport> = errors
        .map(|(code, errors)| ErrorReport {
            code: code_name(Code::from_i32(*code)).to_owned(),
            count: errors.count,
            example: errors.example.clone(),
        })
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    errors
}

fn throughput(measurements: &Measurements, measured: Duration) -> Throughput {
    let volume = measurements.volume;
    let per_second = |count: u64| match measured.as_secs_f64() {
        0.0 => 0.0,
        seconds => count as f64 / seconds,
    };
    Throughput {
        answers: per_second(volume.answers),
        generated_tokens: per_second(volume.generated_tokens),
        scored_tokens: per_second(volume.scored_tokens),
        prompt_tokens: per_second(volume.prompt_tokens),
    }
}

fn latencies(measurements: &Measurements) -> LatencyReports {
    LatencyReports {
        first_token: LatencyReport::of(&measurements.first_token),
        inter_token: LatencyReport::of(&measurements.inter_token),
        generate: LatencyReport::of(&measurements.generate),
        score: LatencyReport::of(&measurements.score),
    }
}

/// Whole slices only: the last one of a run that was stopped would look like a collapse.
fn timeline(measurements: &Measurements, measured: Duration) -> Vec<SliceReport> {
    let length = measurements.timeline.slice_length();
    let seconds = length.as_secs_f64();
    // A slice in which nothing came at all is one too.
    let whole = (measured.as_nanos() / length.as_nanos()) as usize;
    let slices = measurements.timeline.slices().iter().copied().chain(std::iter::repeat(Default::default()));
    let report = |(index, slice): (usize, crate::measure::Slice)| SliceReport {
        second: index as f64 * seconds,
        answers_per_second: slice.answers as f64 / seconds,
        tokens_per_second: slice.tokens as f64 / seconds,
        errors_per_second: slice.errors as f64 / seconds,
    };
    slices.take(whole).enumerate().map(report).collect()
}

fn curves(measurements: &Measurements) -> Vec<Curve> {
    let all = [
        ("first token", &measurements.first_token),
        ("between tokens", &measurements.inter_token),
        ("whole generation", &measurements.generate),
        ("whole scoring", &measurements.score),
    ];
    let curve = |(name, latencies): (&'static str, &Latencies)| Curve {
        name,
        points: latencies.quantiles().map(|point| (point.share, milliseconds(point.value))).collect(),
    };
    all.into_iter().filter(|(_, latencies)| !latencies.is_empty()).map(curve).collect()
}

/// A code as gRPC's documents write it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
