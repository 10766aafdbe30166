//! Hostile requests of the public service.

use std::collections::HashMap;

use chorus_fuzz::{Encoded, Verdict, any_count, any_f64, any_number, assert_one_line, fuzz, mutated, within};
use chorus_proto::v1::{
    BeamOptions, ClassifyRequest, DistributionsRequest, FusionOptions, GenerateRequest, Input, Label,
    LabelCalibration, PredictRequest, RankCandidate, RankRequest, SamplingOptions, ScoreRequest, TokenIds,
    input,
};
use proptest::prelude::*;
use prost::Message;

use super::LONGEST_STATUS;
use crate::fusion::{Fusion, Rule};
use crate::request::{
    Classification, Costs, Distributions, Fusing, Generation, Prediction, Ranking, RequestError, Scoring,
    Terms,
};
use crate::testing::small_ensemble::SmallEnsemble;

/// The limits and the vocabulary of the small ensemble.
const INPUT_TOKENS: u32 = 8;
const GENERATED_TOKENS: u32 = 100;
const TOP_N: u32 = 20;
const BEAMS: u32 = 4;
const VOCABULARY: usize = 4;

fn input() -> impl Strategy<Value = Option<Input>> + Clone {
    let text = prop_oneof![4 => "[ab c]{1,9}", 1 => ".{0,20}"].prop_map(input::Input::Text);
    let id = prop_oneof![6 => 0..4_i64, 1 => any_number().prop_map(|number| number as i64)];
    let ids = prop::collection::vec(id, 0..10).prop_map(|ids| input::Input::Tokens(TokenIds { ids }));
    prop::option::weighted(0.95, prop_oneof![text, ids]).prop_map(|input| Some(Input { input })).boxed()
}

fn fusion() -> impl Strategy<Value = Option<FusionOptions>> + Clone {
    let weight = prop_oneof![3 => 0.0..4.0, 1 => any_f64()];
    let both = (weight.clone(), weight.clone())
        .prop_map(|(alto, bass)| HashMap::from([("alto".to_owned(), alto), ("bass".to_owned(), bass)]));
    let some = prop::collection::hash_map("[a-z\n]{0,3}", weight, 0..3);
    let weights = prop_oneof![4 => Just(HashMap::new()), 3 => both, 1 => some];
    let number = || prop_oneof![5 => 0..6_i32, 1 => any::<i32>()];
    let flags = (any::<bool>(), prop::option::of(any::<bool>()), prop::bool::weighted(0.2));
    let forgetting = prop::option::weighted(0.1, prop_oneof![2 => 0.0..1.0, 1 => any_f64()]);
    let options = (number(), prop::option::weighted(0.3, any_f64()), weights, flags, (number(), forgetting));
    let options = options.prop_map(
        |(rule, threshold, weights, (whole_rows, allow_degraded, adaptive), (format, forgetting))| {
            FusionOptions {
                rule,
                threshold,
                weights,
                whole_rows,
                row_format: format % 4,
                allow_degraded,
                adaptive,
                forgetting,
                ..FusionOptions::default()
            }
        },
    );
    prop::option::of(options).boxed()
}

/// Mostly as it is configured.
fn usual_fusion() -> impl Strategy<Value = Option<FusionOptions>> + Clone {
    prop_oneof![2 => Just(None), 1 => fusion()]
}

fn sampling() -> impl Strategy<Value = Option<SamplingOptions>> + Clone {
    let odd = || prop::option::weighted(0.3, any_f64());
    let ids = || {
        let ids = prop::collection::vec(prop_oneof![5 => 0..4_i64, 1 => any::<i64>()], 0..6);
        prop::option::weighted(0.2, ids.prop_map(|ids| TokenIds { ids }))
    };
    let options = (odd(), prop::option::of(any_count()), odd(), prop::option::of(any_number()));
    let options = (options, prop::option::weighted(0.2, any_f64()), ids(), ids());
    let options =
        options.prop_map(|((temperature, top_k, top_p, seed), repetition_penalty, allowed, forbidden)| {
            SamplingOptions { temperature, top_k, top_p, seed, repetition_penalty, allowed, forbidden }
        });
    prop::option::of(options).boxed()
}

fn beam() -> impl Strategy<Value = Option<BeamOptions>> + Clone {
    let size = prop_oneof![4 => 1..6_u32, 1 => any_count()];
    let options = (size.clone(), prop::option::weighted(0.3, any_f64()), prop::option::of(size));
    let options =
        options.prop_map(|(size, length_penalty, n_best)| BeamOptions { size, length_penalty, n_best });
    prop::option::weighted(0.2, options)
}

/// Feeds one kind of request, as bytes, to its check; `sound` says whether what was accepted is as it should be.
fn check<R: Message + Default, C: Costs>(
    target: &str,
    encoded: impl Strategy<Value = Vec<u8>> + Clone + 'static,
    new: impl Fn(R, &Terms<'_>) -> Result<C, RequestError>,
    sound: impl Fn(&C) -> bool,
) {
    let ensemble = SmallEnsemble::new();
    fuzz(target, mutated(encoded, &["alto", "\n"]), |Encoded(bytes)| {
        // The tokenizer has rooms of its own.
        let room = 64 * bytes.len() + (1 << 20);
        let Ok(request) = within(room, || R::decode(bytes.as_slice())) else {
            return Verdict::Refused;
        };
        match within(room, || new(request, &ensemble.terms())) {
            Ok(accepted) => {
                assert!(accepted.cost() <= u64::from(4 * INPUT_TOKENS + BEAMS * GENERATED_TOKENS));
                assert!(sound(&accepted));
                Verdict::Accepted
            }
            Err(error) => {
                let status =
                    tonic::Status::from(crate::failure::Failure::of_field(error.field, &error.message));
                assert_one_line(status.message(), LONGEST_STATUS);
                assert!(status.message().starts_with(error.field), "{status:?}");
                Verdict::Refused
            }
        }
    });
}

fn are_tokens(tokens: &[u32]) -> bool {
    (1..=INPUT_TOKENS as usize).contains(&tokens.len())
        && tokens.iter().all(|token| (*token as usize) < VOCABULARY)
}

fn can_be_fused(fusing: &Fusing) -> bool {
    let Fusing { fusion, weighting, .. } = fusing;
    let weights = weighting.among(&[0, 1]);
    let weights = weights.as_slice();
    (!weighting.is_adaptive() || fusion.rule == Rule::WeightedAverage)
        && Fusion::threshold_is_valid(fusion.threshold)
        && weights.len() == 2
        && weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
        && weights.iter().any(|weight| *weight > 0.0)
}

#[test]
fn a_generation_that_is_accepted_is_within_its_limits() {
    let stop = prop::collection::vec(".{0,300}", 0..3);
    let stop = prop_oneof![3 => Just(Vec::new()), 1 => stop];
    let max_tokens = prop::option::of(prop_oneof![2 => 1..100_u32, 1 => any_count()]);
    let request = (input(), max_tokens, stop, sampling(), usual_fusion(), any::<bool>());
    let candidates = prop::option::weighted(0.2, prop_oneof![2 => 0..20_u32, 1 => any_count()]);
    let request = (request, beam(), candidates).prop_map(|(request, beam, candidates)| {
        let (prompt, max_tokens, stop, sampling, fusion, log_probs) = request;
        let sampling = sampling.filter(|_| beam.is_none());
        GenerateRequest { prompt, max_tokens, stop, sampling, fusion, log_probs, candidates, beam }
    });
    let encoded = request.prop_map(|request| request.encode_to_vec());
    check("coordinator: generations", encoded.boxed(), Generation::new, |accepted| {
        let sampling = &accepted.sampling;
        are_tokens(&accepted.prompt)
            && can_be_fused(&accepted.fusing)
            && (1..=GENERATED_TOKENS).contains(&accepted.max_tokens)
            && accepted.stop.len() <= 16
            && accepted.adjusting.repetition_penalty > 0.0
            && accepted
                .adjusting
                .allowed
                .as_ref()
                .is_none_or(|allowed| allowed.iter().any(|id| !accepted.adjusting.forbidden.contains(id)))
            && accepted.beam.is_none_or(|beam| {
                (1..=BEAMS as usize).contains(&beam.size)
                    && (1..=beam.size).contains(&beam.n_best)
                    && beam.length_penalty >= 0.0
            })
            && accepted.stop.iter().all(|stop| (1..=256).contains(&stop.len()))
            && sampling.temperature.is_finite()
            && sampling.temperature >= 0.0
            && sampling.top_p > 0.0
            && sampling.top_p <= 1.0
            && (accepted.fusing.fusion.rule.yields_distribution() || !accepted.log_probs)
    });
}

#[test]
fn a_scoring_that_is_accepted_is_within_its_limits() {
    let request = (input(), fusion(), any::<bool>());
    let encoded = request
        .prop_map(|(input, fusion, per_token)| ScoreRequest { input, fusion, per_token }.encode_to_vec());
    check("coordinator: scorings", encoded.boxed(), Scoring::new, |accepted| {
        are_tokens(&accepted.tokens) && can_be_fused(&accepted.fusing)
    });
}

#[test]
fn a_prediction_that_is_accepted_is_within_its_limits() {
    let request = (input(), prop::option::of(any_count()), fusion());
    let encoded =
        request.prop_map(|(prefix, top_n, fusion)| PredictRequest { prefix, top_n, fusion }.encode_to_vec());
    check::<PredictRequest, _>("coordinator: predictions", encoded.boxed(), Prediction::new, |accepted| {
        are_tokens(&accepted.prefix)
            && can_be_fused(&accepted.fusing)
            && (1..=TOP_N).contains(&accepted.top_n)
    });
}

#[test]
fn distributions_that_are_accepted_are_within_their_limits() {
    let temperature = prop::option::of(prop_oneof![2 => 0.1..4.0, 1 => any_f64()]);
    let request = (input(), fusion(), prop::option::of(any_count()), temperature, any::<bool>());
    let encoded = request.prop_map(|(input, fusion, top_n, temperature, members)| {
        DistributionsRequest { input, fusion, top_n, temperature, members }.encode_to_vec()
    });
    check("coordinator: distributions", encoded.boxed(), Distributions::new, |accepted| {
        are_tokens(&accepted.tokens)
            && can_be_fused(&accepted.fusing)
            && accepted.fusing.fusion.rule.yields_distribution()
            && accepted.top_n.is_none_or(|top_n| (1..=TOP_N).contains(&top_n))
            && accepted.temperature.is_finite()
            && accepted.temperature > 0.0
    });
}

#[test]
fn a_ranking_that_is_accepted_is_within_its_limits() {
    let score = prop::option::weighted(0.2, any_f64());
    let short = || {
        let text = "[ab]{1,2}".prop_map(|text| Some(Input { input: Some(input::Input::Text(text)) }));
        prop_oneof![5 => text, 1 => input()]
    };
    let candidate = (short(), score).prop_map(|(continuation, score)| RankCandidate { continuation, score });
    let candidates = prop::collection::vec(candidate, 0..4);
    let by = prop_oneof![5 => 0..4_i32, 1 => any::<i32>()];
    let odd = (prop::option::weighted(0.2, any_f64()), prop::option::weighted(0.2, any_count()));
    let contexts = (prop::option::of(short()), prop::option::weighted(0.2, short()));
    let request = (contexts, candidates, usual_fusion(), by, odd);
    let encoded =
        request.prop_map(|((context, prior_context), candidates, fusion, normalization, (scale, top_n))| {
            let (context, prior_context) = (context.flatten(), prior_context.flatten());
            RankRequest { context, candidates, fusion, normalization, prior_context, scale, top_n }
                .encode_to_vec()
        });
    check("coordinator: rankings", encoded.boxed(), Ranking::new, |accepted| {
        accepted.candidates.iter().all(|tokens| are_tokens(tokens))
            && accepted.candidates.iter().map(Vec::len).sum::<usize>() <= INPUT_TOKENS as usize
            && accepted.candidates.len() == accepted.scores.len()
            && accepted.scores.iter().all(|score| score.is_finite())
            && accepted.scale.is_finite()
            && accepted.top_n >= 1
            && accepted.fusing.fusion.rule.yields_distribution()
            && can_be_fused(&accepted.fusing)
    });
}

#[test]
fn a_classification_that_is_accepted_is_within_its_limits() {
    let label =
        |(name, template): (&str, &str)| Label { name: name.to_owned(), template: template.to_owned() };
    let sound = [("a", "{text}"), ("b", "a{text}"), ("c", "{text}b")].map(label).to_vec();
    let odd = ("[a-c]{0,2}", prop_oneof![3 => "[ab ]{0,2}\\{text\\}[ab]{0,2}", 1 => ".{0,12}"])
        .prop_map(|(name, template)| Label { name, template });
    let labels = prop_oneof![
        3 => prop::sample::subsequence(sound, 2..=3),
        1 => prop::collection::vec(odd, 0..4),
    ];
    let biases = prop::collection::vec(prop_oneof![4 => -2.0..2.0_f64, 1 => any_f64()], 0..4);
    let calibration = ("alto|alto|bass|bass|[a-z]{0,3}", prop::option::weighted(0.5, any_f64()), biases)
        .prop_map(|(member, scale, biases)| LabelCalibration { member, scale, biases });
    let request = (
        prop_oneof![6 => "[ab c]{1,2}", 1 => ".{0,20}"],
        labels,
        usual_fusion(),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(calibration, 0..3)],
    );
    let encoded = request.prop_map(|(text, labels, fusion, calibration)| {
        ClassifyRequest { text, labels, fusion, calibration }.encode_to_vec()
    });
    check("coordinator: classifications", encoded.boxed(), Classification::new, |accepted| {
        let labels = accepted.labels.len();
        labels >= 2
            && accepted.sequences.len() == labels
            && accepted.sequences.iter().all(|tokens| are_tokens(tokens))
            && accepted.calibrations.len() == 2
            && accepted.calibrations.iter().all(|calibration| {
                calibration.scale.is_finite()
                    && calibration.scale >= 0.0
                    && calibration.biases.len() == labels
                    && calibration.biases.iter().all(|bias| bias.is_finite())
            })
            && can_be_fused(&accepted.fusing)
    });
}
