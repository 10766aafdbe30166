//! What a run gave, in the units and under the keys in which people and programs read it. The keys are an interface.
//!
//! Knows nothing about how it is printed or drawn.

use std::time::Duration;

use serde::Serialize;
use tonic::Code;

use crate::{
    measure::{Latencies, Measurements},
    run::{Load, Plan, RunResult},
};

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

/// A thread that computes for more of its time than this can't be told from the server.
const BUSY: f64 = 0.8;
/// A call that is made later than this shows in latencies of milliseconds.
const LATE_MS: f64 = 1.0;

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

    /// What a reader of the figures has to know about them, as sentences; none where they can be taken as they are.
    #[must_use]
    pub fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        let CallsReport { not_sent, unfinished, degraded, answered, .. } = self.calls;
        if let LoadReport::Open { most_in_flight, .. } = self.load
            && not_sent > 0
        {
            cautions.push(format!(
                "{not_sent} calls were not sent, because {most_in_flight} were in flight: the server did not keep up, and \
                 the latencies are those of the calls that found room"
            ));
        }
        if unfinished > 0 {
            cautions.push(format!(
                "{unfinished} calls had no end when the run was over: the longest latencies are not among the figures"
            ));
        }
        if degraded > 0 {
            cautions.push(format!("{degraded} of {answered} answers were made without some member"));
        }
        if self.client.busiest_thread > BUSY {
            cautions.push(format!(
                "a thread of this load test computed for {:.0} % of its time: the figures may be its own; try --threads {}",
                self.client.busiest_thread * 100.0,
                self.client.threads * 2
            ));
        } else if self.client.sent_late_ms_p99 > LATE_MS && matches!(self.load, LoadReport::Open { .. }) {
            cautions.push(format!(
                "one call in a hundred was made {:.1} ms late or more by this machine: its latency counts that too",
                self.client.sent_late_ms_p99
            ));
        }
        cautions
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

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{
        measure::{Answer, Failure, Watch, Window},
        run::ClientCost,
        workload::Kind,
    };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    pub(crate) fn plan(load: Load) -> Plan {
        Plan {
            load,
            window: Window { from: seconds(1.0), until: seconds(11.0) },
            drain: seconds(1.0),
            threads: 1,
            connections: 2,
            timeout: None,
            watched: None,
        }
    }

    /// Ten generations of three tokens, one each second; one scoring; one failure.
    pub(crate) fn result(plan: &Plan) -> RunResult {
        let all = RefCell::new(Measurements::new(plan.window));
        for index in 0..10 {
            let start = 1.0 + f64::from(index);
            let mut watch = Watch::new(&all, Kind::Generate, seconds(start), seconds(start + 0.0005));
            for token in 1..=3 {
                watch.token(seconds(start + 0.1 * f64::from(token)));
            }
            let answer = Answer { prompt_tokens: 4, degraded: index == 0, ..Answer::default() };
            watch.end(seconds(start + 0.5), Ok(answer));
        }
        let watch = || Watch::new(&all, Kind::Score, seconds(2.0), seconds(2.0));
        watch().end(seconds(2.25), Ok(Answer { scored_tokens: 20, ..Answer::default() }));
        let failure = Failure { code: Code::Unavailable, message: "below quorum".to_owned() };
        watch().end(seconds(3.0), Err(failure));
        RunResult {
            measurements: all.into_inner(),
            measured: plan.window.length(),
            interrupted: false,
            client: ClientCost { cpu: seconds(0.005), busiest: 0.25, tokens: 50 },
            watched_cpu: None,
        }
    }

    #[test]
    fn the_keys_and_units_of_the_json_are_these() {
        let plan = plan(Load::Open { rate: 5.0, most_in_flight: 100 });
        let json = serde_json::to_value(Report::new(&plan, &result(&plan))).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "load",
            "warm_up_seconds",
            "measured_seconds",
            "interrupted",
            "calls",
            "errors",
            "per_second",
            "latency_ms",
            "client",
            "timeline",
        ];
        assert_eq!(keys, expected);
        assert_eq!(json["load"], serde_json::json!({"kind": "open", "rate": 5.0, "most_in_flight": 100}));
        let calls = serde_json::json!({
            "sent": 12, "answered": 11, "failed": 1, "unfinished": 0, "not_sent": 0, "degraded": 1,
        });
        assert_eq!(json["calls"], calls);
        let errors = serde_json::json!([{"code": "UNAVAILABLE", "count": 1, "example": "below quorum"}]);
        assert_eq!(json["errors"], errors);
        let per_second = serde_json::json!({
            "answers": 1.1, "generated_tokens": 3.0, "scored_tokens": 2.0, "prompt_tokens": 4.0,
        });
        assert_eq!(json["per_second"], per_second);
        let near = |value: &serde_json::Value, expected: f64| {
            (value.as_f64().unwrap() / expected - 1.0).abs() < 2e-3
        };
        let latency = &json["latency_ms"];
        assert!(near(&latency["first_token"]["p50"], 100.0), "{latency}");
        assert!(near(&latency["inter_token"]["max"], 100.0) && latency["inter_token"]["count"] == 20);
        assert!(near(&latency["generate"]["p999"], 500.0) && near(&latency["score"]["mean"], 250.0));
        assert_eq!(json["client"]["cpu_us_per_token"], 100.0);
        assert_eq!((&json["client"]["threads"], &json["client"]["connections"]), (&1.into(), &2.into()));
        assert_eq!(json["timeline"].as_array().unwrap().len(), 50, "a slice of 200 ms each");
    }

    #[test]
    fn a_run_that_was_stopped_is_measured_by_its_own_time() {
        let plan = plan(Load::Closed { concurrency: 3 });
        let stopped = RunResult { measured: seconds(5.0), interrupted: true, ..result(&plan) };
        let report = Report::new(&plan, &stopped);
        assert_eq!((report.measured_seconds, report.timeline.len()), (5.0, 25));
        assert_eq!(report.per_second.generated_tokens, 6.0);
        let nothing = RunResult { measured: Duration::ZERO, ..stopped };
        assert_eq!(Report::new(&plan, &nothing).per_second.answers, 0.0);
    }

    #[test]
    fn figures_that_mislead_are_said_to() {
        let plan = plan(Load::Open { rate: 5.0, most_in_flight: 7 });
        let cautions = |change: &dyn Fn(&mut RunResult)| {
            let mut result = result(&plan);
            change(&mut result);
            Report::new(&plan, &result).cautions()
        };
        let one = cautions(&|_| {});
        assert!(one.len() == 1 && one[0].contains("1 of 11 answers"), "{one:?}");
        let unsent = cautions(&|result| result.measurements.not_sent(seconds(2.0)));
        assert!(unsent[0].contains("1 calls were not sent, because 7 were in flight"), "{unsent:?}");
        let unfinished = cautions(&|result| result.measurements.calls.sent += 1);
        assert!(unfinished[0].contains("1 calls had no end"), "{unfinished:?}");
        let busy = cautions(&|result| result.client.busiest = 0.95);
        assert!(busy[1].contains("95 %") && busy[1].contains("--threads 2"), "{busy:?}");
        let late = cautions(&|result| {
            let all = RefCell::new(result.measurements.clone());
            let _call = Watch::new(&all, Kind::Score, seconds(2.0), seconds(2.5));
            result.measurements = all.into_inner();
        });
        assert!(late.iter().any(|caution| caution.contains("late")), "{late:?}");
    }

    #[test]
    fn codes_are_written_as_grpc_writes_them() {
        assert_eq!(code_name(Code::ResourceExhausted), "RESOURCE_EXHAUSTED");
        // Those of a reply that names no known code.
        assert_eq!(code_name(Code::from_i32(99)), "UNKNOWN");
    }
}
