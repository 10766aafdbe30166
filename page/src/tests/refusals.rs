//! Hostile and mistaken input: every refusal is JSON, has the right HTTP status, and names what was wrong.

use super::Served;
use crate::api::LARGEST_REQUEST;

#[tokio::test]
async fn what_can_t_be_read_names_the_field() {
    let page = Served::start().await;
    for (body, field, words) in [
        (r#"{"prompt": {"text": 7}}"#, Some("prompt.text"), "invalid type: integer `7`"),
        (r#"{"sampling": {"temperature": "warm"}}"#, Some("sampling.temperature"), "invalid float literal"),
        (r#"{"max_tokens": -1}"#, Some("max_tokens"), "max_tokens"),
        (r#"{"max_tokens": 5000000000}"#, Some("max_tokens"), "max_tokens"),
        (r#"{"fusion": {"rule": "RULE_OF_THUMB"}}"#, Some("fusion.rule"), "RULE_OF_THUMB"),
        (r#"{"fusion": {"weights": {"alto": []}}}"#, Some("fusion.weights.alto"), "invalid type: sequence"),
        (r#"{"promt": {"text": "go"}}"#, None, "unrecognized field name 'promt'"),
        (
            r#"{"prompt": {"text": "go", "tokens": {"ids": [1]}}}"#,
            Some("prompt"),
            "multiple fields provided for oneof 'input'",
        ),
        ("{\"prompt\"", None, "EOF while parsing"),
        ("{} {}", None, "trailing characters"),
        ("[]", None, "invalid type: sequence"),
        ("", None, "EOF while parsing"),
        ("\u{0}\u{1}", None, "expected value"),
    ] {
        let answer = page.post("/api/generate", body).await;
        let json = answer.json();
        assert_eq!((answer.status, &json["code"]), (400, &"INVALID_ARGUMENT".into()), "{body}: {json}");
        assert_eq!(json.get("field").and_then(|field| field.as_str()), field, "{body}: {json}");
        assert!(json["message"].as_str().unwrap().contains(words), "{body}: {json}");
        assert!(json["message"].as_str().unwrap().contains("chorus.v1.GenerateRequest"), "{json}");
    }
    let deep = format!("{}{}", r#"{"fusion":"#.repeat(1000), "}".repeat(1000));
    assert_eq!(page.post("/api/generate", deep).await.status, 400);
    assert!(page.ensemble.generations.lock().unwrap().is_empty(), "nothing of it was asked");
}

#[tokio::test]
async fn what_the_ensemble_refuses_has_the_status_of_its_code() {
    let page = Served::start().await;
    for (prompt, status, code, field) in [
        ("", 400, "INVALID_ARGUMENT", Some("prompt")),
        ("detailed", 400, "INVALID_ARGUMENT", Some("sampling.top_p")),
        ("full", 429, "RESOURCE_EXHAUSTED", None),
        ("secret", 401, "UNAUTHENTICATED", None),
        ("gone", 503, "UNAVAILABLE", None),
    ] {
        let answer = page.post("/api/generate", format!(r#"{{"prompt": {{"text": "{prompt}"}}}}"#)).await;
        let json = answer.json();
        assert_eq!((answer.status, json["code"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(json.get("field").and_then(|field| field.as_str()), field, "{json}");
        assert_eq!(answer.header("www-authenticate"), if prompt == "secret" { "Bearer" } else { "" });
        assert_eq!(answer.header("retry-after"), if prompt == "full" { "2" } else { "" });
    }
}

#[tokio::test]
async fn a_request_is_as_large_as_is_allowed_and_no_larger() {
    let page = Served::start().await;
    let (before, after) = (r#"{"prompt": {"text": ""#, r#""}}"#);
    let of = |bytes: usize| format!("{before}{}{after}", "a".repeat(bytes - before.len() - after.len()));
    assert_eq!(page.post("/api/generate", of(LARGEST_REQUEST)).await.status, 200);
    let refused = page.post("/api/generate", of(LARGEST_REQUEST + 1)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.json()["message"].as_str().unwrap().contains("1048576 bytes"), "{refused:?}");
}

#[tokio::test]
async fn other_paths_methods_and_types_are_refused_in_json() {
    let page = Served::start().await;
    for (method, path, content, status) in [
        ("GET", "/nothing", "application/json", 404),
        ("GET", "/../Cargo.toml", "application/json", 404),
        ("GET", "/api/generate", "application/json", 405),
        ("POST", "/api/status", "application/json", 405),
        ("POST", "/", "application/json", 405),
        ("OPTIONS", "/api/generate", "application/json", 405),
        ("POST", "/api/generate", "text/plain", 415),
        ("POST", "/api/score", "application/x-www-form-urlencoded", 415),
        ("POST", "/api/predict", "application/jsonx", 415),
    ] {
        let answer = page.ask(method, path, &[("content-type", content)], "{}").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.json()["message"].as_str().unwrap().contains("allowed: "), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}
