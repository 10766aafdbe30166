//! `chorus bench` as a user types it: against an ensemble, against what it brings itself, and wrong.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use chorus_proto::v1::StatusRequest;
use chorus_tests::{Chorus, Ensemble, models, process::Ended};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

fn json(ended: &Ended) -> Value {
    assert!(ended.status.success(), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn count(report: &Value, key: &str) -> u64 {
    report["calls"][key].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_is_measured_in_both_loops_and_a_replay() {
    let ensemble = Ensemble::demo("").await;
    let address = ensemble.address.to_string();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let to = ["bench", "--addr", &address, "--warm-up", "0s", "--duration", "1s"];
    let with = |words: &[&str]| Chorus::run(to.iter().chain(words));

    let picture = path("bench.svg");
    let closed = json(&with(&["--concurrency", "2", "--max-tokens", "4", "--json", "--picture", &picture]));
    assert_eq!(closed["load"], serde_json::json!({"kind": "closed", "concurrency": 2}));
    assert!(count(&closed, "answered") > 0);
    assert_eq!(
        (count(&closed, "failed"), count(&closed, "unfinished"), count(&closed, "degraded")),
        (0, 0, 0)
    );
    let gaps = closed["latency_ms"]["inter_token"]["count"].as_u64().unwrap();
    assert_eq!(gaps, 3 * closed["latency_ms"]["first_token"]["count"].as_u64().unwrap());
    assert!(fs::read_to_string(&picture).unwrap().contains("latency by percentile"));

    let prompts = path("prompts.jsonl");
    fs::write(&prompts, "ROMEO:\n{\"score\": \"What news?\"}\n{\"prompt\": \"KING\", \"max_tokens\": 2}\n")
        .unwrap();
    let open = with(&["--rate", "30", "--prompts", &prompts, "--max-tokens", "4", "--temperature", "0"]);
    assert!(open.status.success(), "{}", open.stderr);
    for words in ["open loop, 30.00 calls/s", "first token", "whole scoring", "p99.9"] {
        assert!(open.stdout.contains(words), "the tables lack {words}: {}", open.stdout);
    }

    let refused = with(&["--max-tokens", "5000"]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the ensemble allows 1 to 4096"), "{}", refused.stderr);

    // Every call is refused by the ensemble: the report is there, and the command has failed.
    let failing = with(&["--temperature", "-1", "--concurrency", "1"]);
    assert_eq!(failing.status.code(), Some(1), "{}", failing.stdout);
    assert!(
        failing.stdout.contains("INVALID_ARGUMENT") && failing.stderr.contains("was answered"),
        "{failing:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_is_a_multiple_of_the_goodput_at_the_maximum() {
    let ensemble = Ensemble::demo("[limits]\nmax_sessions = 2\nmax_waiting = 4\n").await;
    let address = ensemble.address.to_string();
    let to = ["bench", "--addr", &address, "--warm-up", "0s", "--duration", "1s", "--overload", "3"];
    let words = ["--concurrency", "1", "--max-tokens", "4", "--rounds", "1"];
    let found = json(&Chorus::run(to.iter().chain(&words).chain(&["--json"])));
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap();
    let (maximum, overloaded) = (&found["maximum"], &found["overloaded"]);
    let steps = found["steps"].as_array().unwrap();
    assert_eq!(steps[0]["concurrency"], 1);
    let highest = steps.iter().chain([maximum]).map(|of| number(of, "goodput")).fold(0.0, f64::max);
    let rate = number(&overloaded["report"]["load"], "rate");
    assert!((number(&found, "highest") - highest).abs() < 1e-6, "{highest}");
    let at_the_maximum = number(maximum, "goodput");
    assert!((rate / at_the_maximum - 3.0).abs() < 1e-6, "{rate} is not three times {at_the_maximum}");
    assert_eq!(found["rounds"], serde_json::json!([[maximum["goodput"], overloaded["goodput"]]]));
    let share = number(overloaded, "goodput") / number(maximum, "goodput");
    assert!((number(&found, "goodput_share") - share).abs() < 1e-9);
    let calls = &overloaded["report"]["calls"];
    assert!(calls["answered"].as_u64().unwrap() > 0 && number(overloaded, "refused_share") <= 1.0, "{calls}");

    let table = Chorus::run(to.iter().chain(&words));
    assert!(table.status.success(), "{}", table.stderr);
    for words in
        ["at the maximum", "3 times that", "whole generation, p99 in ms", "% of the highest that was seen"]
    {
        assert!(table.stdout.contains(words), "the table lacks {words}: {}", table.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_prints_what_was_measured() {
    let ensemble = Ensemble::demo("").await;
    let address = ensemble.address.to_string();
    let bench = Chorus::start(["bench", "--addr", &address, "--warm-up", "0s", "--duration", "1h"]);
    let client = ensemble.client().await;
    chorus_tests::until("calls in progress", || {
        let mut client = client.clone();
        async move { client.status(StatusRequest {}).await.unwrap().into_inner().sessions > 0 }
    })
    .await;
    bench.signal(Signal::SIGINT);
    let ended = bench.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("(interrupted)") && ended.stdout.contains("closed loop, 8 callers"),
        "{}",
        ended.stdout
    );
    chorus_tests::until("no calls left behind", || {
        let mut client = client.clone();
        async move { client.status(StatusRequest {}).await.unwrap().into_inner().sessions == 0 }
    })
    .await;
}

#[test]
fn the_tool_and_a_coordinator_alone_are_measured_without_an_ensemble() {
    let quick = ["--warm-up", "0s", "--duration", "2s", "--json"];
    let null_server = json(&Chorus::run(["bench", "--null-server"].iter().chain(&quick)));
    assert!(count(&null_server, "answered") > 0);
    assert!(null_server["client"]["cpu_us_per_token"].as_f64().unwrap() > 0.0);
    for rule in ["weighted_average", "log_linear"] {
        let words = [
            "bench",
            "--null-workers",
            "3",
            "--vocabulary",
            "300",
            "--mix",
            "generate,score",
            "--rule",
            rule,
        ];
        let report = json(&Chorus::run(words.iter().chain(&quick)));
        assert!(count(&report, "answered") > 0);
        assert_eq!((count(&report, "failed"), count(&report, "degraded")), (0, 0), "{report}");
        let cost = &report["coordinator"];
        assert_eq!((&cost["members"], &cost["vocabulary"]), (&3.into(), &300.into()));
        assert!(cost["cpu_us_per_token"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn growth_has_a_line_for_each_vocabulary_and_a_picture() {
    let folder = TempDir::new().unwrap();
    let picture = folder.path().join("growth.svg");
    let words = ["bench", "growth", "--members", "1,2", "--vocabulary", "50,300", "--sessions", "1,2"];
    let more = ["--at-members", "1", "--at-vocabulary", "50", "--duration", "400ms", "--json", "--picture"];
    let growth = json(&Chorus::run(words.iter().chain(&more).chain(&[picture.to_str().unwrap()])));
    assert_eq!(growth["by_members"].as_array().unwrap().len(), 4);
    assert_eq!(growth["by_sessions"].as_array().unwrap().len(), 2);
    let vocabularies: Vec<&Value> =
        growth["lines"].as_array().unwrap().iter().map(|line| &line["vocabulary"]).collect();
    assert_eq!(vocabularies, [50, 300]);
    assert!(fs::read_to_string(picture).unwrap().contains("V = 300"));
}

#[test]
fn the_tax_and_a_step_of_the_demo_ensemble_are_measured() {
    let models = models::demo("alto").parent().unwrap().to_str().unwrap().to_owned();
    let quick = ["--models", &models, "--duration", "500ms", "--json"];
    let tax = ["bench", "tax", "--rounds", "1", "--concurrency", "2", "--max-tokens", "4"];
    let tax = json(&Chorus::run(tax.iter().chain(&quick)));
    assert_eq!(tax["models"], serde_json::json!(models::DEMO));
    let share = tax["served_share"].as_f64().unwrap();
    let first = |key: &str| tax[key][0].as_f64().unwrap();
    assert!((share - first("served") / first("in_process")).abs() < 1e-9);
    let step = json(&Chorus::run(["bench", "step", "--steps", "20"].iter().chain(&quick)));
    let members = step["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    for member in members {
        assert_eq!(
            (&member["in_process_ms"]["count"], &member["over_a_hop_ms"]["count"]),
            (&20.into(), &20.into())
        );
    }
    assert!(step["through_coordinator_ms"]["count"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_wrong_is_one_sentence_and_a_status() {
    let folder = TempDir::new().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    fs::write(&prompts, "fine\n{\"prompts\": 1}\n").unwrap();
    let prompts = prompts.to_str().unwrap();
    for (arguments, status, words) in [
        (&["bench", "--addr", "127.0.0.1:9"][..], 1, &["no ensemble answers", "chorus up"][..]),
        (&["bench", "--rate", "0"], 2, &["--rate", "0.01"]),
        (&["bench", "--ramp", "p99"], 2, &["first-token:p99:50ms"]),
        (&["bench", "--overload", "none"], 2, &["from 0.1 to 100"]),
        (&["bench", "--null-server", "--prompts", "not/here"], 1, &["not/here"]),
        (&["bench", "--null-server", "--prompts", prompts], 1, &["prompts.jsonl", "line 2 can't be read"]),
        (&["bench", "tax", "--models", "not/here"], 1, &["not/here"]),
        (&["bench", "growth", "--vocabulary", "0"], 2, &["from 2 to"]),
    ] {
        let ended = Chorus::run(arguments);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{arguments:?}: '{}' does not say '{word}'", ended.stderr);
        }
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
