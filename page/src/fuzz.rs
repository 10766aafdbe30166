//! Hostile JSON: what is accepted is a message that is the same after writing and reading again, what is not is refused in one
//! bounded line.

use chorus_fuzz::{Encoded, Verdict, assert_one_line, fuzz, mutated, within};
use chorus_proto::v1::GenerateRequest;
use proptest::prelude::*;

use crate::json::Json;

const VALID: [&str; 4] = [
    r#"{"prompt":{"text":"ROMEO:"},"max_tokens":9,"stop":["a"],"candidates":5,"log_probs":true}"#,
    r#"{"prompt":{"tokens":{"ids":["1",2]}},"sampling":{"temperature":0.5,"top_p":"NaN","seed":"18446744073709551615"}}"#,
    r#"{"fusion":{"rule":"RULE_LOG_LINEAR","weights":{"alto":2,"bass":-0.5},"members":["alto"],"allow_degraded":false}}"#,
    r#"{"beam":{"size":4,"length_penalty":1e300,"n_best":2},"sampling":{"allowed":{"ids":[]},"forbidden":null}}"#,
];

#[test]
fn a_request_that_is_accepted_is_one_and_stays_the_same() {
    let words = [
        "\"text\"",
        "{",
        "}",
        "[",
        "]",
        "null",
        "-1",
        "1e400",
        "\"Infinity\"",
        "\\u0000",
        "\"prompt\":",
        "\"max_tokens\":",
    ];
    let valid = prop::sample::select(VALID.map(|text| text.as_bytes().to_vec()).to_vec());
    let json = Json::new().unwrap();
    fuzz("page: requests as JSON", mutated(valid, &words), |Encoded(bytes)| {
        match within(256 * bytes.len() + 64 * 1024, || json.read::<GenerateRequest>(&bytes)) {
            Ok(request) => {
                let written = json.write(&request).unwrap();
                let again: GenerateRequest = json.read(&written).unwrap();
                // Compared as it is written, since NaN is not itself.
                assert_eq!(json.write(&again).unwrap().len(), written.len());
                Verdict::Accepted
            }
            Err(failure) => {
                assert_one_line(&failure.message, 900);
                assert!(failure.field.is_none_or(|field| field.chars().count() <= 220));
                Verdict::Refused
            }
        }
    });
}
