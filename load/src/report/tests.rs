//! The keys, the figures and the sentences, on runs that are made up.

use std::{cell::RefCell, time::Duration};

use tonic::Code;

use super::*;
use crate::{
    measure::{Answer, Failure, Measurements, Watch, Window},
    run::{ClientCost, Load, Plan, RunResult},
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
    let near =
        |value: &serde_json::Value, expected: f64| (value.as_f64().unwrap() / expected - 1.0).abs() < 2e-3;
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
