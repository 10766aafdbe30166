//! Mistakes in prompts, prefixes and texts, in counts and in stop strings.

use chorus_proto::v1::{self, Input};
use chorus_text::Vocabulary;

use super::{SmallEnsemble, asking, assert_refused, ids, text};
use crate::request::{Prediction, Scoring};

#[test]
fn inputs() {
    let cases = [
        (None, "it is missing; allowed: text or token ids"),
        (Some(Input { input: None }), "it is missing; allowed: text or token ids"),
        (text(""), "the text is empty; allowed: 1 to 12 bytes"),
        (text("aaaaaaaaaaaaa"), "the text has 13 bytes; allowed: 1 to 12 (limits.max_input_bytes)"),
        (text("aaaaaaaaa"), "it has 9 tokens; allowed: 1 to 8 (limits.max_input_tokens)"),
        (
            text("abé"),
            "the vocabulary can't express the character 'é' (U+00E9) at position 2 of the text (counted in \
             characters from 0); allowed: text that the members' vocabulary can express",
        ),
        (ids(&[]), "it has 0 tokens; allowed: 1 to 8 (limits.max_input_tokens)"),
        (ids(&[0; 9]), "it has 9 tokens; allowed: 1 to 8 (limits.max_input_tokens)"),
        (ids(&[0, 4]), "the token id at position 1 is 4; allowed: 0 to 3, the members' vocabulary"),
        (ids(&[-1]), "the token id at position 0 is -1; allowed: 0 to 3, the members' vocabulary"),
        (
            ids(&[1 << 32]),
            "the token id at position 0 is 4294967296; allowed: 0 to 3, the members' vocabulary",
        ),
        (
            ids(&[i64::MIN]),
            "the token id at position 0 is -9223372036854775808; allowed: 0 to 3, the members' vocabulary",
        ),
    ];
    let ensemble = SmallEnsemble::new();
    for (input, message) in cases {
        let prompt = v1::GenerateRequest { prompt: input.clone(), ..asking() };
        let score = v1::ScoreRequest { input: input.clone(), ..v1::ScoreRequest::default() };
        let predict = v1::PredictRequest { prefix: input, ..v1::PredictRequest::default() };
        assert_refused(prompt, &format!("prompt: {message}"));
        let error = Scoring::new(score, &ensemble.terms()).unwrap_err();
        assert_eq!(error.to_string(), format!("input: {message}"));
        let error = Prediction::new(predict, &ensemble.terms()).unwrap_err();
        assert_eq!(error.to_string(), format!("prefix: {message}"));
    }
}

#[test]
fn text_without_tokens() {
    let words = SmallEnsemble {
        vocabulary: Vocabulary::from_word_list(["a", "b"].map(str::to_owned).to_vec()).unwrap(),
        ..SmallEnsemble::new()
    };
    let request = v1::GenerateRequest { prompt: text("  "), ..asking() };
    assert_eq!(
        words.generate(request).unwrap_err().to_string(),
        "prompt: it has 0 tokens; allowed: 1 to 8 (limits.max_input_tokens)"
    );
}

#[test]
fn counts() {
    for (given, shown) in [(0, "0"), (101, "101"), (u32::MAX, "4294967295")] {
        let request = v1::GenerateRequest { max_tokens: Some(given), ..asking() };
        let message = format!("max_tokens: {shown} is not allowed; allowed: 1 to 100, the server's limit");
        assert_refused(request, &message);
    }
    let ensemble = SmallEnsemble::new();
    for given in [0, 21, u32::MAX] {
        let request =
            v1::PredictRequest { prefix: text("ab"), top_n: Some(given), ..v1::PredictRequest::default() };
        let error = Prediction::new(request, &ensemble.terms()).unwrap_err();
        let message = format!("top_n: {given} is not allowed; allowed: 1 to 20, the server's limit");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn stop_strings() {
    let many = vec!["a".to_owned(); 17];
    let long = vec!["a".to_owned(), "b".repeat(257)];
    let empty = vec![String::new()];
    let cases = [
        (many, "there are 17 stop strings; allowed: 0 to 16"),
        (long, "the stop string at position 1 has 257 bytes; allowed: 1 to 256"),
        (empty, "the stop string at position 0 has 0 bytes; allowed: 1 to 256"),
    ];
    for (stop, message) in cases {
        assert_refused(v1::GenerateRequest { stop, ..asking() }, &format!("stop: {message}"));
    }
}
