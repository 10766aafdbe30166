//! What is asked reaches the ensemble, and what it answers comes back, in the names of `chorus.v1`.

use chorus_proto::v1::{Rule, SamplingOptions, input};
use serde_json::json;

use super::Served;

#[tokio::test]
async fn a_generation_is_asked_for_with_every_field_and_streams_a_line_a_message() {
    let page = Served::start().await;
    let body = json!({
        "prompt": {"text": "go"}, "max_tokens": 9, "stop": ["x"], "candidates": 5, "log_probs": true,
        "sampling": {"temperature": 0.5, "top_k": 3, "seed": "18446744073709551615", "forbidden": {"ids": ["4"]}},
        "fusion": {"rule": "RULE_LOG_LINEAR", "weights": {"alto": 2, "tenor": 0.5}, "members": ["alto", "tenor"], "allow_degraded": false},
    });
    let answer = page.post("/api/generate", body.to_string()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let lines: Vec<serde_json::Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let participation =
        json!({"participants": ["alto"], "missing": [{"name": "tenor", "reason": "it is gone"}]});
    assert_eq!(
        lines,
        [
            json!({"token": {"id": 7, "log_prob": "-Infinity", "candidates": [{"id": 7, "text": "a", "probability": 0.25, "member_probabilities": [0.5]}]}, "text": "a", "participation": participation}),
            json!({"token": {"id": 7, "index": 1, "log_prob": "-Infinity", "candidates": [{"id": 7, "text": "a", "probability": 0.25, "member_probabilities": [0.5]}]}, "text": "a", "participation": participation}),
            json!({"participation": participation, "end": {"reason": "MAX_TOKENS", "generated_tokens": 2, "seed": "1152921504606846976"}}),
        ]
    );

    let asked = page.ensemble.generations.lock().unwrap().pop().unwrap();
    assert_eq!(asked.prompt.unwrap().input, Some(input::Input::Text("go".into())));
    assert_eq!(
        (asked.max_tokens, asked.candidates, asked.log_probs, asked.stop),
        (Some(9), Some(5), true, vec!["x".to_owned()])
    );
    let SamplingOptions { temperature, top_k, seed, forbidden, top_p, .. } = asked.sampling.unwrap();
    assert_eq!((temperature, top_k, seed, top_p), (Some(0.5), Some(3), Some(u64::MAX), None));
    assert_eq!(forbidden.unwrap().ids, [4]);
    let fusion = asked.fusion.unwrap();
    assert_eq!((fusion.rule(), fusion.allow_degraded), (Rule::LogLinear, Some(false)));
    assert_eq!((fusion.members, fusion.weights["alto"]), (vec!["alto".to_owned(), "tenor".to_owned()], 2.0));
}

#[tokio::test]
async fn the_other_calls_answer_once() {
    let page = Served::start().await;
    let status = page.get("/api/status").await;
    assert_eq!(
        status.json(),
        json!({"members": [{"name": "alto", "parameters": "1152921504606846976", "health": "UP"}], "rule": "RULE_LOG_LINEAR", "serving": true})
    );
    assert_eq!(status.header("cache-control"), "no-store");
    let score = page.post("/api/score", r#"{"input": {"text": "four"}}"#).await;
    assert_eq!(score.json(), json!({"tokens": 4, "log_prob": -2.5}));
    let predicted = page.post("/api/predict", r#"{"prefix": {"text": "on"}, "top_n": 1}"#).await;
    assert_eq!(predicted.json(), json!({"candidates": [{"id": 1, "text": "on", "probability": 0.5}]}));
}

#[tokio::test]
async fn the_ensemble_hears_who_asks() {
    let page = Served::start().await;
    page.get("/api/status").await;
    let (said, peer) = page.ensemble.last_call.lock().unwrap().clone();
    assert!(said.is_empty(), "{said:?}");
    assert!(peer.is_some_and(|peer| peer.ip().is_loopback()), "{peer:?}");
    let headers = [
        ("authorization", "Bearer open sesame"),
        ("x-request-id", "mine"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
    ];
    page.ask("GET", "/api/status", &[&headers[..], &[("cookie", "of no interest")]].concat(), "").await;
    let (said, _) = page.ensemble.last_call.lock().unwrap().clone();
    for (name, value) in headers {
        assert_eq!(said.get(name).unwrap(), value);
    }
    assert_eq!(said.len(), headers.len());
}

#[tokio::test]
async fn an_answer_says_what_its_request_is_called_in_logs() {
    let page = Served::start().await;
    let answer = page.post("/api/score", r#"{"input": {"text": "abc"}}"#).await;
    assert_eq!(answer.headers["x-request-id"], "score-1");
    let answer = page.post("/api/predict", r#"{"prefix": {"text": "abc"}}"#).await;
    assert!(answer.headers.get("x-request-id").is_none(), "where there is none, none is made up");
}

#[tokio::test]
async fn a_generation_that_fails_on_the_way_says_so_in_its_last_line() {
    let page = Served::start().await;
    let answer = page.post("/api/generate", r#"{"prompt": {"text": "breaks"}}"#).await;
    assert_eq!(answer.status, 200);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 2, "{answer:?}");
    assert_eq!(lines[1], r#"{"error":{"code":"UNAVAILABLE","message":"everybody is gone"}}"#);
}
