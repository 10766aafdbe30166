//! Weights that were learned for every set of members: whoever is missing, the others have those of their own set.

use chorus_proto::v1::{Expectation, FusionOptions, Rule};

use super::*;
use crate::weights::LearnedWeights;

/// Every set has weights that no other one implies, and a perplexity of its own.
const SETS: [(&[usize], &[f64], f64); 7] = [
    (&[0, 1, 2], &[0.5, 0.3, 0.2], 4.0),
    (&[0, 1], &[0.1, 0.9], 5.0),
    (&[0, 2], &[0.8, 0.2], 6.0),
    (&[1, 2], &[0.05, 0.95], 7.0),
    (&[0], &[1.0], 8.0),
    (&[1], &[1.0], 9.0),
    (&[2], &[1.0], 10.0),
];

fn file(fingerprint: &str, vocabulary: &Vocabulary) -> String {
    let members =
        (1..).zip(NAMES).map(|(seed, name)| format!("{{name = {name:?}, model = '{fingerprint} {seed}'}}"));
    let members = members.collect::<Vec<_>>().join(", ");
    let sets = SETS.map(|(members, weights, perplexity)| {
        let members: Vec<&str> = members.iter().map(|index| NAMES[*index]).collect();
        format!("{{members = {members:?}, weights = {weights:?}, perplexity = {perplexity:?}}}")
    });
    let sets = sets.join(", ");
    format!(
        "format = 1\nvocabulary = {:?}\nmembers = [{members}]\n\
         [rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [{sets}]\n\
         [rules.threshold_vote]\nmethod = 'grid'\ntokens = 7\nthreshold = 0.4\nsets = [{sets}]",
        vocabulary.fingerprint()
    )
}

async fn stage(style: Style, vocabulary: &Vocabulary, toml: &str) -> Stage {
    Stage::with_learned(style, vocabulary, toml, &file("scripted", vocabulary)).await
}

fn set(participants: &[String]) -> (Vec<usize>, &'static [f64], f64) {
    let present = |index: &usize| participants.iter().any(|name| name == NAMES[*index]);
    let present: Vec<usize> = (0..3).filter(present).collect();
    let (_, weights, perplexity) = SETS.into_iter().find(|(members, ..)| *members == present).unwrap();
    (present, weights, perplexity)
}

/// The log-probability of a token with the weights of exactly these participants.
fn log_prob(stage: &Stage, participants: &[String], prefix: &[u32], token: u32) -> f64 {
    let (present, weights, _) = set(participants);
    let rows: Vec<_> =
        present.iter().map(|index| stage.members[*index].model.rows([prefix].into_iter())).collect();
    let rows: Vec<_> =
        weights.iter().zip(&rows).map(|(weight, rows)| (*weight, rows.row(0).unwrap())).collect();
    let mut scratch = Scratch::default();
    match fuse(&stage.config.fusion, &rows, &mut scratch).unwrap() {
        Fused::Distribution(distribution) => distribution.log_prob(token).unwrap(),
        Fused::Winner(_) => unreachable!(),
    }
}

fn expectation(perplexity: f64) -> Option<Expectation> {
    let (perplexity, perplexity_of_all) = (Some(perplexity), Some(4.0));
    Some(Expectation { perplexity, perplexity_of_all, ..Expectation::default() })
}

#[tokio::test]
async fn every_token_has_the_weights_of_those_who_took_part_and_says_what_is_expected_of_them() {
    for lost in 0..3 {
        let stage = stage(Style::Noise, &vocabulary(), "").await;
        stage.members[lost].follow(|read| if read == 6 { Act::Die } else { Act::Answer });
        let prompt = [1, 2];
        let replies = stage.generate(request(&prompt, 12, 7)).await.unwrap();
        let mut prefix = prompt.to_vec();
        let mut sizes = Vec::new();
        for reply in replies.iter().filter(|reply| reply.token.is_some()) {
            let token = reply.token.as_ref().unwrap();
            let Participation { participants, expectation: found, .. } = participation(reply);
            let expected = log_prob(&stage, participants, &prefix, token.id);
            assert_eq!(token.log_prob.unwrap().to_bits(), expected.to_bits());
            let (_, weights, perplexity) = set(participants);
            let shares: Vec<f64> = token.members.iter().map(|member| member.weight).collect();
            assert!(shares.iter().zip(weights).all(|(share, weight)| (share - weight).abs() < 1e-12));
            let degraded = participants.len() < 3;
            assert_eq!(*found, if degraded { expectation(perplexity) } else { None });
            sizes.push(participants.len());
            prefix.push(token.id);
        }
        assert!(sizes.contains(&3) && sizes.contains(&2), "{sizes:?}");
        let whole = participation(replies.last().unwrap());
        let whole = whole.expectation.unwrap();
        assert!((whole.perplexity_of_all.unwrap() - 4.0).abs() < 1e-9, "{whole:?}");
        assert!(whole.perplexity.unwrap() > 4.0, "{whole:?}");
    }
}

#[tokio::test]
async fn a_seed_has_one_text_by_all_plans_whoever_is_lost() {
    for lost in 0..3 {
        for seed in 0..12 {
            let mut texts = Vec::new();
            for log_probs in [false, true] {
                let stage = stage(Style::Noise, &large_vocabulary(), "").await;
                stage.members[lost].follow(|read| if read == 5 { Act::Die } else { Act::Answer });
                let request = GenerateRequest { log_probs, ..request(&[1, 2], 9, seed) };
                let replies = stage.generate(request).await.unwrap();
                let tokens = replies.iter().filter_map(|reply| Some(reply.token.as_ref()?.id));
                texts.push(tokens.collect::<Vec<_>>());
            }
            assert_eq!(texts[0], texts[1], "seed {seed} without {lost}");
        }
    }
}

#[tokio::test]
async fn greedy_choices_are_those_of_whole_rows_whoever_is_lost() {
    for lost in 0..3 {
        let mut texts = Vec::new();
        for log_probs in [false, true] {
            let stage = stage(Style::Language, &large_vocabulary(), "").await;
            stage.members[lost].follow(|read| if read == 5 { Act::Die } else { Act::Answer });
            let sampling = SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() };
            let request = GenerateRequest { log_probs, sampling: Some(sampling), ..request(&[1, 2], 20, 1) };
            let replies = stage.generate(request).await.unwrap();
            texts.push(replies.iter().filter_map(|reply| Some(reply.token.as_ref()?.id)).collect::<Vec<_>>());
        }
        assert_eq!(texts[0], texts[1], "without {lost}");
    }
}

#[tokio::test]
async fn a_score_has_the_weights_of_those_who_scored_all_of_it() {
    let stage = stage(Style::Noise, &vocabulary(), "").await;
    stage.members[1].follow(|read| if read > 4 { Act::Die } else { Act::Answer });
    let tokens = [1, 7, 0, 3, 3, 2];
    let request = ScoreRequest { input: ids(&tokens), per_token: true, ..ScoreRequest::default() };
    let reply = stage.score(request).await.unwrap();
    let found = reply.participation.unwrap();
    assert_eq!(found.participants, ["alto", "cello"]);
    assert_eq!(found.expectation, expectation(6.0));
    for (place, score) in reply.token_scores.iter().enumerate() {
        let expected = log_prob(&stage, &found.participants, &tokens[..place], score.id);
        assert_eq!(score.log_prob.unwrap().to_bits(), expected.to_bits());
    }
    let weights: Vec<f64> = reply.members.iter().map(|member| member.weight).collect();
    assert!((weights[0] - 0.8).abs() < 1e-12 && (weights[1] - 0.2).abs() < 1e-12, "{weights:?}");
}

#[tokio::test]
async fn a_prediction_too() {
    let stage = stage(Style::Noise, &vocabulary(), "").await;
    stage.members[2].die();
    let request = PredictRequest { prefix: ids(&[3, 3]), ..PredictRequest::default() };
    let reply = stage.predict(request).await.unwrap();
    let found = reply.participation.unwrap();
    assert_eq!(found.expectation, expectation(5.0));
    let candidate = &reply.candidates[0];
    let expected = log_prob(&stage, &found.participants, &[3, 3], candidate.id).exp();
    assert!((candidate.probability - expected).abs() < 1e-15);
}

#[tokio::test]
async fn a_request_s_own_weights_and_threshold_come_first() {
    let stage = stage(Style::Noise, &vocabulary(), "").await;
    let weights = NAMES.iter().zip([1.0, 1.0, 2.0]);
    let weights = weights.map(|(name, weight)| ((*name).to_owned(), weight)).collect();
    let own = FusionOptions { weights, ..FusionOptions::default() };
    let request = ScoreRequest { input: ids(&[1, 2]), fusion: Some(own), per_token: false };
    let reply = stage.score(request).await.unwrap();
    let weights: Vec<f64> = reply.members.iter().map(|member| member.weight).collect();
    assert_eq!(weights, [0.25, 0.25, 0.5]);
    // The learned threshold is 0.4, the configured one 0.1.
    let vote =
        |threshold| FusionOptions { rule: Rule::ThresholdVote.into(), threshold, ..FusionOptions::default() };
    let mut votes = Vec::new();
    for threshold in [None, Some(0.4), Some(0.1)] {
        let tokens: Vec<u32> = (0..40).map(|place| place % 8).collect();
        let request = ScoreRequest { input: ids(&tokens), fusion: Some(vote(threshold)), per_token: false };
        votes.push(stage.score(request).await.unwrap().votes.unwrap());
    }
    assert_eq!(votes[0], votes[1]);
    assert_ne!(votes[0], votes[2]);
}

#[tokio::test]
async fn those_of_another_ensemble_are_not_used_and_the_status_says_why() {
    let vocabulary = vocabulary();
    let stage = Stage::with_learned(Style::Noise, &vocabulary, "", &file("another", &vocabulary)).await;
    let learned = stage.status().await.learned.unwrap();
    assert!(!learned.in_force && learned.rules.is_empty());
    assert_eq!(
        learned.reason,
        "they were learned when member \"alto\" was the model \"another 1\", but it hosts scripted 1; allowed: weights \
         learned with this ensemble"
    );
    let request = ScoreRequest { input: ids(&[1, 2]), ..ScoreRequest::default() };
    let reply = stage.score(request).await.unwrap();
    let weights: Vec<f64> = reply.members.iter().map(|member| member.weight * 6.0).collect();
    assert!(weights.iter().zip(WEIGHTS).all(|(found, configured)| (found - configured).abs() < 1e-12));
}

#[tokio::test]
async fn the_status_has_the_weights_that_are_in_force() {
    let stage = stage(Style::Noise, &vocabulary(), "").await;
    let status = stage.status().await;
    let learned = status.learned.unwrap();
    assert!(learned.in_force && learned.reason.is_empty());
    assert_eq!(learned.rules, [Rule::WeightedAverage, Rule::ThresholdVote].map(i32::from));
    let weights: Vec<f64> = status.members.iter().map(|member| member.weight).collect();
    assert_eq!(weights, SETS[0].1);
    assert!(status.members.iter().all(|member| member.model_fingerprint.starts_with("scripted ")));
    // As written, the file is what was read.
    let text = file("scripted", &vocabulary());
    let learned = LearnedWeights::from_toml(&text).unwrap();
    assert_eq!(LearnedWeights::from_toml(&learned.to_toml().unwrap()).unwrap(), learned);
}
