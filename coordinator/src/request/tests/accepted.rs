//! What is no mistake: every bound itself, and what a request leaves out.

use chorus_proto::v1::{self, FusionOptions, RowFormat, SamplingOptions};

use super::{SmallEnsemble, asking, fusing, ids, sampling};
use crate::{
    fusion::Rule,
    plan::{Plan, RowOptions},
    request::{Prediction, Scoring},
    sampling::Sampling,
    weights::Weighting,
};

#[test]
fn what_a_request_does_not_say_is_as_configured() {
    let ensemble = SmallEnsemble::new();
    let generation = ensemble.generate(asking()).unwrap();
    assert_eq!(generation.prompt, ensemble.vocabulary.encode("ab").unwrap());
    assert_eq!((generation.max_tokens, generation.seed), (64, None));
    assert_eq!(generation.sampling, Sampling::default());
    let weights = Weighting::fixed(ensemble.weights.clone());
    assert_eq!((generation.fusing.fusion, &generation.fusing.weighting), (ensemble.fusion, &weights));
    assert_eq!(generation.fusing.rows, RowOptions::default());
    assert_eq!(generation.plan(1000), Plan::Drawn);
    let request = v1::PredictRequest { prefix: ids(&[3]), ..v1::PredictRequest::default() };
    let prediction = Prediction::new(request, &ensemble.terms()).unwrap();
    assert_eq!((prediction.prefix, prediction.top_n), (vec![3], 10));
    let request = v1::ScoreRequest { input: ids(&[0, 3]), ..v1::ScoreRequest::default() };
    let scoring = Scoring::new(request, &ensemble.terms()).unwrap();
    assert_eq!((scoring.tokens.as_slice(), scoring.plan(1000)), (&[0, 3][..], Plan::Targets));
}

#[test]
fn a_default_never_exceeds_the_limit() {
    let mut small = SmallEnsemble::new();
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
            ..SamplingOptions::default()
        })
    };
    let generation = SmallEnsemble::new().generate(request).unwrap();
    assert_eq!(generation.fusing.fusion.rule, Rule::LogLinear);
    assert_eq!(generation.fusing.weighting.whole().as_slice(), [3.0, 0.0]);
    assert_eq!((generation.max_tokens, generation.seed), (100, Some(u64::MAX)));
    let sampling = Sampling { temperature: 0.0, top_k: u32::MAX, top_p: f64::MIN_POSITIVE };
    assert_eq!(generation.sampling, sampling);
    let rows =
        FusionOptions { whole_rows: true, row_format: RowFormat::Bf16.into(), ..FusionOptions::default() };
    let whole = v1::GenerateRequest { fusion: Some(rows), ..asking() };
    let whole = SmallEnsemble::new().generate(whole).unwrap();
    assert_eq!(whole.fusing.rows, RowOptions { whole: true, format: RowFormat::Bf16 });
    assert_eq!(whole.plan(1000), Plan::Dense(RowFormat::Bf16));
    let vote = v1::GenerateRequest { fusion: fusing(Rule::ThresholdVote, Some(0.0), &[]), ..asking() };
    assert_eq!(SmallEnsemble::new().generate(vote).unwrap().fusing.fusion.threshold, 0.0);
}
