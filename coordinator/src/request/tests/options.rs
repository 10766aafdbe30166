//! Mistakes in sampling and fusion options, and in what does not go together.

use chorus_proto::v1::{self, FusionOptions, SamplingOptions};

use super::{SmallEnsemble, asking, assert_refused, fusing, sampling};
use crate::fusion::{Fusion, Rule};

#[test]
fn sampling_options() {
    for (given, shown) in
        [(-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")]
    {
        let options = SamplingOptions { temperature: Some(given), ..SamplingOptions::default() };
        let allowed = "allowed: a finite number of at least 0 (0 is greedy)";
        let message = format!("sampling.temperature: {shown} is not allowed; {allowed}");
        assert_refused(sampling(options), &message);
    }
    for (given, shown) in
        [(0.0, "0"), (-0.5, "-0.5"), (1.01, "1.01"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")]
    {
        let options = SamplingOptions { top_p: Some(given), ..SamplingOptions::default() };
        let message = format!("sampling.top_p: {shown} is not allowed; allowed: more than 0 and at most 1");
        assert_refused(sampling(options), &message);
    }
}

#[test]
fn sampling_options_with_a_vote() {
    let none = SamplingOptions::default();
    let cases = [
        ("temperature", SamplingOptions { temperature: Some(1.0), ..none.clone() }),
        ("top_k", SamplingOptions { top_k: Some(0), ..none.clone() }),
        ("top_p", SamplingOptions { top_p: Some(1.0), ..none.clone() }),
        ("seed", SamplingOptions { seed: Some(0), ..none.clone() }),
    ];
    for (field, options) in cases {
        let request =
            v1::GenerateRequest { fusion: fusing(Rule::ThresholdVote, None, &[]), ..sampling(options) };
        let message = "threshold_vote has no distribution to sample from; allowed: absent, or another rule";
        assert_refused(request, &format!("sampling.{field}: {message}"));
    }
    let empty = v1::GenerateRequest { fusion: fusing(Rule::ThresholdVote, None, &[]), ..sampling(none) };
    assert!(SmallEnsemble::new().generate(empty).is_ok());
}

#[test]
fn a_configured_vote_refuses_what_a_requested_one_refuses() {
    let ensemble = SmallEnsemble {
        fusion: Fusion { rule: Rule::ThresholdVote, threshold: 0.2 },
        ..SmallEnsemble::new()
    };
    let request = sampling(SamplingOptions { seed: Some(1), ..SamplingOptions::default() });
    assert_eq!(ensemble.generate(request.clone()).unwrap_err().field, "sampling.seed");
    let averaged = v1::GenerateRequest { fusion: fusing(Rule::WeightedAverage, None, &[]), ..request };
    assert!(ensemble.generate(averaged).is_ok());
}

#[test]
fn log_probabilities_of_a_vote() {
    let request =
        v1::GenerateRequest { fusion: fusing(Rule::ThresholdVote, None, &[]), log_probs: true, ..asking() };
    let message = "log_probs: threshold_vote has no distribution and so no log-probabilities; allowed: false, or \
                   another rule";
    assert_refused(request, message);
}

#[test]
fn rules() {
    for number in [-1, 6, i32::MAX] {
        let options = FusionOptions { rule: number, ..FusionOptions::default() };
        let request = v1::GenerateRequest { fusion: Some(options), ..asking() };
        let message = format!(
            "fusion.rule: {number} is no rule; allowed: 1 (weighted_average), 2 (threshold_vote), 3 (log_linear), \
             4 (logit_mean), 5 (logit_max)"
        );
        assert_refused(request, &message);
    }
}

#[test]
fn thresholds() {
    for (given, shown) in [(-0.1, "-0.1"), (1.0, "1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        for rule in Rule::ALL {
            let request = v1::GenerateRequest { fusion: fusing(rule, Some(given), &[]), ..asking() };
            let message = format!("{shown} is not allowed; allowed: at least 0 and less than 1");
            assert_refused(request, &format!("fusion.threshold: {message}"));
        }
    }
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::ThresholdVote) {
        let request = v1::GenerateRequest { fusion: fusing(rule, Some(0.5), &[]), ..asking() };
        let message =
            format!("fusion.threshold: {rule} has no threshold; allowed: none, or the rule threshold_vote");
        assert_refused(request, &message);
    }
}

#[test]
fn weights() {
    let value = "allowed: a finite number of at least 0";
    let cases: [(&[(&str, f64)], &str); 7] = [
        (&[("alto", 1.0), ("bass", -1.0)], &format!("the weight of member \"bass\" is -1; {value}")),
        (&[("alto", f64::NAN), ("bass", 1.0)], &format!("the weight of member \"alto\" is NaN; {value}")),
        (
            &[("alto", f64::INFINITY), ("bass", 1.0)],
            &format!("the weight of member \"alto\" is inf; {value}"),
        ),
        (&[("alto", 0.0), ("bass", 0.0)], "every weight is 0; allowed: at least one weight above 0"),
        (&[("alto", 1.0)], "no weight for bass; allowed: a weight for every member, or none at all"),
        (&[("tuba", 1.0)], "\"tuba\" is no member; allowed: a weight for each of alto, bass"),
        (
            &[("alto", 1.0), ("bass", 1.0), ("tuba", 1.0)],
            "\"tuba\" is no member; allowed: a weight for each of alto, bass",
        ),
    ];
    for (weights, message) in cases {
        let request =
            v1::GenerateRequest { fusion: fusing(Rule::WeightedAverage, None, weights), ..asking() };
        assert_refused(request, &format!("fusion.weights: {message}"));
    }
    for rule in [Rule::LogitMean, Rule::LogitMax] {
        let weights: &[(&str, f64)] = &[("alto", 1.0), ("bass", 1.0)];
        let request = v1::GenerateRequest { fusion: fusing(rule, None, weights), ..asking() };
        let message =
            format!("fusion.weights: {rule} uses no weights; allowed: none, or a rule that uses them");
        assert_refused(request, &message);
    }
}

#[test]
fn row_format() {
    let asking = |rule: Rule, row_format| {
        let options = FusionOptions { row_format, ..fusing(rule, None, &[]).unwrap() };
        v1::GenerateRequest { fusion: Some(options), ..asking() }
    };
    let message = "fusion.row_format: 3 is no format; allowed: 0 (f32), 1 (f16), 2 (bf16)";
    assert_refused(asking(Rule::LogLinear, 3), message);
    let message = "fusion.row_format: logit_max compares the members' own logits, of which only distances travel in two \
                   bytes; allowed: f32, or another rule";
    assert_refused(asking(Rule::LogitMax, 1), message);
}

#[test]
fn weights_that_follow_the_text() {
    let asking_for = |rule: Rule, adaptive, forgetting| {
        let options = FusionOptions {
            rule: v1::Rule::from(rule).into(),
            adaptive,
            forgetting,
            ..FusionOptions::default()
        };
        v1::GenerateRequest { fusion: Some(options), ..asking() }
    };
    for forgetting in [None, Some(1.0), Some(1e-300)] {
        let request = asking_for(Rule::WeightedAverage, true, forgetting);
        assert!(SmallEnsemble::new().generate(request).unwrap().fusing.weighting.is_adaptive());
    }
    for forgetting in [0.0, -0.5, 1.5, f64::NAN] {
        let message =
            format!("fusion.forgetting: {forgetting} is not allowed; allowed: above 0 and at most 1");
        assert_refused(asking_for(Rule::WeightedAverage, true, Some(forgetting)), &message);
    }
    let message =
        "fusion.forgetting: only weights that follow the text forget it; allowed: none, or adaptive";
    assert_refused(asking_for(Rule::WeightedAverage, false, Some(0.5)), message);
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::WeightedAverage) {
        let message = format!(
            "fusion.adaptive: {rule} is no mixture of the members; allowed: false, or weighted_average"
        );
        assert_refused(asking_for(rule, true, None), &message);
    }
}
