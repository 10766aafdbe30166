//! The table of callers' mistakes: each is one sentence that names the field and what is allowed.

use std::collections::HashMap;

use chorus_proto::v1::{self, ErrorCode, FusionOptions, Input, SamplingOptions, TokenIds, input};
use chorus_text::Vocabulary;

use super::{Generation, Prediction, RequestError, Scoring, Terms};
use crate::{
    config::Limits,
    fusion::{Fusion, Rule},
    plan::Plan,
    sampling::Sampling,
    weights::Weights,
};

/// An ensemble of two members that know the letters a, b, c and the space.
struct Ensemble {
    vocabulary: Vocabulary,
    limits: Limits,
    fusion: Fusion,
    members: Vec<String>,
    weights: Weights,
}

impl Ensemble {
    fn new() -> Self {
        Self {
            vocabulary: Vocabulary::train_characters("ab c").unwrap(),
            limits: Limits {
                max_input_tokens: 8,
                max_input_bytes: 12,
                max_generated_tokens: 100,
                max_top_n: 20,
                ..Limits::default()
            },
            fusion: Fusion::default(),
            members: ["alto", "bass"].map(str::to_owned).to_vec(),
            weights: Weights::new([("alto", 1.0), ("bass", 2.0)]).unwrap(),
        }
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            vocabulary: &self.vocabulary,
            limits: &self.limits,
            fusion: &self.fusion,
            members: &self.members,
            weights: &self.weights,
        }
    }

    fn generate(&self, request: v1::GenerateRequest) -> Result<Generation, RequestError> {
        Generation::new(request, &self.terms())
    }
}

fn text(text: &str) -> Option<Input> {
    let input = Some(input::Input::Text(text.to_owned()));
    Some(Input { input })
}

fn ids(ids: &[i64]) -> Option<Input> {
    let tokens = TokenIds { ids: ids.to_vec() };
    let input = Some(input::Input::Tokens(tokens));
    Some(Input { input })
}

fn asking() -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: text("ab"),
        ..v1::GenerateRequest::default()
    }
}

fn sampling(options: SamplingOptions) -> v1::GenerateRequest {
    v1::GenerateRequest {
        sampling: Some(options),
        ..asking()
    }
}

fn fusing(rule: Rule, threshold: Option<f64>, weights: &[(&str, f64)]) -> Option<FusionOptions> {
    let weights: HashMap<String, f64> = weights
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight))
        .collect();
    Some(FusionOptions {
        rule: v1::Rule::from(rule).into(),
        threshold,
        weights,
    })
}

/// Every request refuses this, with this message.
fn assert_refused(request: v1::GenerateRequest, message: &str) {
    let error = Ensemble::new().generate(request).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn inputs() {
    let cases = [
        (None, "it is missing; allowed: text or token ids"),
        (
            Some(Input { input: None }),
            "it is missing; allowed: text or token ids",
        ),
        (text(""), "the text is empty; allowed: 1 to 12 bytes"),
        (
            text("aaaaaaaaaaaaa"),
            "the text has 13 bytes; allowed: 1 to 12 (limits.max_input_bytes)",
        ),
        (
            text("aaaaaaaaa"),
            "it has 9 tokens; allowed: 1 to 8 (limits.max_input_tokens)",
        ),
        (
            text("abé"),
            "the vocabulary can't express the character 'é' (U+00E9) at position 2 of the text (counted in \
             characters from 0); allowed: text that the members' vocabulary can express",
        ),
        (
            ids(&[]),
            "it has 0 tokens; allowed: 1 to 8 (limits.max_input_tokens)",
        ),
        (
            ids(&[0; 9]),
            "it has 9 tokens; allowed: 1 to 8 (limits.max_input_tokens)",
        ),
        (
            ids(&[0, 4]),
            "the token id at position 1 is 4; allowed: 0 to 3, the members' vocabulary",
        ),
        (
            ids(&[-1]),
            "the token id at position 0 is -1; allowed: 0 to 3, the members' vocabulary",
        ),
        (
            ids(&[1 << 32]),
            "the token id at position 0 is 4294967296; allowed: 0 to 3, the members' vocabulary",
        ),
        (
            ids(&[i64::MIN]),
            "the token id at position 0 is -9223372036854775808; allowed: 0 to 3, the members' vocabulary",
        ),
    ];
    let ensemble = Ensemble::new();
    for (input, message) in cases {
        let prompt = v1::GenerateRequest {
            prompt: input.clone(),
            ..asking()
        };
        let score = v1::ScoreRequest {
            input: input.clone(),
            ..v1::ScoreRequest::default()
        };
        let predict = v1::PredictRequest {
            prefix: input,
            ..v1::PredictRequest::default()
        };
        assert_refused(prompt, &format!("prompt: {message}"));
        let error = Scoring::new(score, &ensemble.terms()).unwrap_err();
        assert_eq!(error.to_string(), format!("input: {message}"));
        let error = Prediction::new(predict, &ensemble.terms()).unwrap_err();
        assert_eq!(error.to_string(), format!("prefix: {message}"));
    }
}

#[test]
fn text_without_tokens() {
    let words = Ensemble {
        vocabulary: Vocabulary::from_word_list(["a", "b"].map(str::to_owned).to_vec()).unwrap(),
        ..Ensemble::new()
    };
    let request = v1::GenerateRequest {
        prompt: text("  "),
        ..asking()
    };
    assert_eq!(
        words.generate(request).unwrap_err().to_string(),
        "prompt: it has 0 tokens; allowed: 1 to 8 (limits.max_input_tokens)"
    );
}

#[test]
fn counts() {
    for (given, shown) in [(0, "0"), (101, "101"), (u32::MAX, "4294967295")] {
        let request = v1::GenerateRequest {
            max_tokens: Some(given),
            ..asking()
        };
        let message = format!("max_tokens: {shown} is not allowed; allowed: 1 to 100, the server's limit");
        assert_refused(request, &message);
    }
    let ensemble = Ensemble::new();
    for given in [0, 21, u32::MAX] {
        let request = v1::PredictRequest {
            prefix: text("ab"),
            top_n: Some(given),
            ..v1::PredictRequest::default()
        };
        let error = Prediction::new(request, &ensemble.terms()).unwrap_err();
        let message = format!("top_n: {given} is not allowed; allowed: 1 to 20, the server's limit");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn sampling_options() {
    for (given, shown) in [
        (-0.1, "-0.1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        let options = SamplingOptions {
            temperature: Some(given),
            ..SamplingOptions::default()
        };
        let allowed = "allowed: a finite number of at least 0 (0 is greedy)";
        let message = format!("sampling.temperature: {shown} is not allowed; {allowed}");
        assert_refused(sampling(options), &message);
    }
    for (given, shown) in [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (1.01, "1.01"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        let options = SamplingOptions {
            top_p: Some(given),
            ..SamplingOptions::default()
        };
        let message = format!("sampling.top_p: {shown} is not allowed; allowed: more than 0 and at most 1");
        assert_refused(sampling(options), &message);
    }
}

#[test]
fn sampling_options_with_a_vote() {
    let none = SamplingOptions::default();
    let cases = [
        (
            "temperature",
            SamplingOptions {
                temperature: Some(1.0),
                ..none
            },
        ),
        (
            "top_k",
            SamplingOptions {
                top_k: Some(0),
                ..none
            },
        ),
        (
            "top_p",
            SamplingOptions {
                top_p: Some(1.0),
                ..none
            },
        ),
        (
            "seed",
            SamplingOptions {
                seed: Some(0),
                ..none
            },
        ),
    ];
    for (field, options) in cases {
        let request = v1::GenerateRequest {
            fusion: fusing(Rule::ThresholdVote, None, &[]),
            ..sampling(options)
        };
        let message = "threshold_vote has no distribution to sample from; allowed: absent, or another rule";
        assert_refused(request, &format!("sampling.{field}: {message}"));
    }
    let empty = v1::GenerateRequest {
        fusion: fusing(Rule::ThresholdVote, None, &[]),
        ..sampling(none)
    };
    assert!(Ensemble::new().generate(empty).is_ok());
}

#[test]
fn a_configured_vote_refuses_what_a_requested_one_refuses() {
    let ensemble = Ensemble {
        fusion: Fusion {
            rule: Rule::ThresholdVote,
            threshold: 0.2,
        },
        ..Ensemble::new()
    };
    let request = sampling(SamplingOptions {
        seed: Some(1),
        ..SamplingOptions::default()
    });
    assert_eq!(
        ensemble.generate(request.clone()).unwrap_err().field,
        "sampling.seed"
    );
    let averaged = v1::GenerateRequest {
        fusion: fusing(Rule::WeightedAverage, None, &[]),
        ..request
    };
    assert!(ensemble.generate(averaged).is_ok());
}

#[test]
fn log_probabilities_of_a_vote() {
    let request = v1::GenerateRequest {
        fusion: fusing(Rule::ThresholdVote, None, &[]),
        log_probs: true,
        ..asking()
    };
    let message = "log_probs: threshold_vote has no distribution and so no log-probabilities; allowed: false, or \
                   another rule";
    assert_refused(request, message);
}

#[test]
fn rules() {
    for number in [-1, 6, i32::MAX] {
        let options = FusionOptions {
            rule: number,
            ..FusionOptions::default()
        };
        let request = v1::GenerateRequest {
            fusion: Some(options),
            ..asking()
        };
        let message = format!(
            "fusion.rule: {number} is no rule; allowed: 1 (weighted_average), 2 (threshold_vote), 3 (log_linear), \
             4 (logit_mean), 5 (logit_max)"
        );
        assert_refused(request, &message);
    }
}

#[test]
fn thresholds() {
    for (given, shown) in [
        (-0.1, "-0.1"),
        (1.0, "1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        for rule in Rule::ALL {
            let request = v1::GenerateRequest {
                fusion: fusing(rule, Some(given), &[]),
                ..asking()
            };
            let message = format!("{shown} is not allowed; allowed: at least 0 and less than 1");
            assert_refused(request, &format!("fusion.threshold: {message}"));
        }
    }
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::ThresholdVote) {
        let request = v1::GenerateRequest {
            fusion: fusing(rule, Some(0.5), &[]),
            ..asking()
        };
        let message =
            format!("fusion.threshold: {rule} has no threshold; allowed: none, or the rule threshold_vote");
        assert_refused(request, &message);
    }
}

#[test]
fn weights() {
    let value = "allowed: a finite number of at least 0";
    let cases: [(&[(&str, f64)], &str); 7] = [
        (
            &[("alto", 1.0), ("bass", -1.0)],
            &format!("the weight of member \"bass\" is -1; {value}"),
        ),
        (
            &[("alto", f64::NAN), ("bass", 1.0)],
            &format!("the weight of member \"alto\" is NaN; {value}"),
        ),
        (
            &[("alto", f64::INFINITY), ("bass", 1.0)],
            &format!("the weight of member \"alto\" is inf; {value}"),
        ),
        (
            &[("alto", 0.0), ("bass", 0.0)],
            "every weight is 0; allowed: at least one weight above 0",
        ),
        (
            &[("alto", 1.0)],
            "no weight for bass; allowed: a weight for every member, or none at all",
        ),
        (
            &[("tuba", 1.0)],
            "\"tuba\" is no member; allowed: a weight for each of alto, bass",
        ),
        (
            &[("alto", 1.0), ("bass", 1.0), ("tuba", 1.0)],
            "\"tuba\" is no member; allowed: a weight for each of alto, bass",
        ),
    ];
    for (weights, message) in cases {
        let request = v1::GenerateRequest {
            fusion: fusing(Rule::WeightedAverage, None, weights),
            ..asking()
        };
        assert_refused(request, &format!("fusion.weights: {message}"));
    }
    for rule in [Rule::LogitMean, Rule::LogitMax] {
        let weights: &[(&str, f64)] = &[("alto", 1.0), ("bass", 1.0)];
        let request = v1::GenerateRequest {
            fusion: fusing(rule, None, weights),
            ..asking()
        };
        let message =
            format!("fusion.weights: {rule} uses no weights; allowed: none, or a rule that uses them");
        assert_refused(request, &message);
    }
}

#[test]
fn stop_strings() {
    let many = vec!["a".to_owned(); 17];
    let long = vec!["a".to_owned(), "b".repeat(257)];
    let empty = vec![String::new()];
    let cases = [
        (many, "there are 17 stop strings; allowed: 0 to 16"),
        (
            long,
            "the stop string at position 1 has 257 bytes; allowed: 1 to 256",
        ),
        (
            empty,
            "the stop string at position 0 has 0 bytes; allowed: 1 to 256",
        ),
    ];
    for (stop, message) in cases {
        assert_refused(
            v1::GenerateRequest { stop, ..asking() },
            &format!("stop: {message}"),
        );
    }
}

#[test]
fn what_a_request_does_not_say_is_as_configured() {
    let ensemble = Ensemble::new();
    let generation = ensemble.generate(asking()).unwrap();
    assert_eq!(generation.prompt, ensemble.vocabulary.encode("ab").unwrap());
    assert_eq!((generation.max_tokens, generation.seed), (64, None));
    assert_eq!(generation.sampling, Sampling::default());
    assert_eq!(
        (generation.fusion, &generation.weights),
        (ensemble.fusion, &ensemble.weights)
    );
    assert_eq!(generation.plan(), Plan::for_generate());
    let request = v1::PredictRequest {
        prefix: ids(&[3]),
        ..v1::PredictRequest::default()
    };
    let prediction = Prediction::new(request, &ensemble.terms()).unwrap();
    assert_eq!((prediction.prefix, prediction.top_n), (vec![3], 10));
    let request = v1::ScoreRequest {
        input: ids(&[0, 3]),
        ..v1::ScoreRequest::default()
    };
    let scoring = Scoring::new(request, &ensemble.terms()).unwrap();
    assert_eq!(
        (scoring.tokens.as_slice(), scoring.plan()),
        (&[0, 3][..], Plan::for_score(Rule::WeightedAverage))
    );
}

#[test]
fn a_default_never_exceeds_the_limit() {
    let mut small = Ensemble::new();
    small.limits.max_generated_tokens = 5;
    assert_eq!(small.generate(asking()).unwrap().max_tokens, 5);
}

#[test]
fn what_a_request_says_is_taken() {
    let request = v1::GenerateRequest {
        max_tokens: Some(100),
        stop: vec!["b".repeat(256)],
        fusion: fusing(Rule::LogLinear, None, &[("bass", 0.0), ("alto", 3.0)]),
        log_probs: true,
        ..sampling(SamplingOptions {
            temperature: Some(0.0),
            top_k: Some(u32::MAX),
            top_p: Some(f64::MIN_POSITIVE),
            seed: Some(u64::MAX),
        })
    };
    let generation = Ensemble::new().generate(request).unwrap();
    assert_eq!(generation.fusion.rule, Rule::LogLinear);
    assert_eq!(generation.weights.as_slice(), [3.0, 0.0]);
    assert_eq!((generation.max_tokens, generation.seed), (100, Some(u64::MAX)));
    assert_eq!(generation.sampling.temperature, 0.0);
    let vote = v1::GenerateRequest {
        fusion: fusing(Rule::ThresholdVote, Some(0.0), &[]),
        ..asking()
    };
    assert_eq!(Ensemble::new().generate(vote).unwrap().fusion.threshold, 0.0);
}
