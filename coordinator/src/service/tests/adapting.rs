//! Weights that follow the text, held against Bayes' rule as it is written in books.

use chorus_proto::v1::FusionOptions;

use super::*;

fn adaptive(forgetting: Option<f64>, whole_rows: bool) -> Option<FusionOptions> {
    Some(FusionOptions { adaptive: true, forgetting, whole_rows, ..FusionOptions::default() })
}

/// The log-probability of each token under the mixture whose weights are proportional to
/// w_j exp(sum_i lambda^(n-i) log P_j(x_i)), and the last weights.
fn by_the_book(tokens: &[Vec<f64>], forgetting: f64) -> (Vec<f64>, Vec<f64>) {
    let weights = |seen: &[Vec<f64>]| {
        let evidence = |member: usize| {
            let ages = (0..seen.len()).rev().map(|age| forgetting.powi(i32::try_from(age).unwrap()));
            seen.iter().zip(ages).map(|(token, power)| power * token[member]).sum::<f64>()
        };
        let members = WEIGHTS.len();
        let joint: Vec<f64> = (0..members).map(|member| WEIGHTS[member] * evidence(member).exp()).collect();
        let sum: f64 = joint.iter().sum();
        joint.into_iter().map(|joint| joint / sum).collect::<Vec<f64>>()
    };
    let mixture = |place: usize| {
        let weights = weights(&tokens[..place]);
        weights.iter().zip(&tokens[place]).map(|(weight, log_prob)| weight * log_prob.exp()).sum::<f64>().ln()
    };
    ((0..tokens.len()).map(mixture).collect(), weights(tokens))
}

#[tokio::test]
async fn a_score_is_that_of_bayes_rule() {
    let stage = Stage::new("").await;
    let tokens: Vec<u32> = (0..30).map(|place| place * 5 % 8).collect();
    for (given, forgetting) in [(Some(1.0), 1.0), (Some(0.95), 0.95), (None, 0.8)] {
        let mut replies = Vec::new();
        for whole_rows in [false, true] {
            let fusion = adaptive(given, whole_rows);
            let request = ScoreRequest { input: ids(&tokens), fusion, per_token: true };
            replies.push(stage.score(request).await.unwrap());
        }
        assert_eq!(replies[0], replies[1], "by log-probabilities and by rows");
        let reply = &replies[0];
        let said: Vec<Vec<f64>> =
            reply.token_scores.iter().map(|score| score.member_log_probs.clone()).collect();
        let (expected, weights) = by_the_book(&said, forgetting);
        for (score, expected) in reply.token_scores.iter().zip(&expected) {
            assert!((score.log_prob.unwrap() - expected).abs() < 1e-9, "{score:?} {expected}");
        }
        assert!((reply.log_prob.unwrap() - expected.iter().sum::<f64>()).abs() < 1e-9);
        for (member, expected) in reply.members.iter().zip(weights) {
            assert!((member.weight - expected).abs() < 1e-9, "{member:?} {expected}");
        }
    }
}

#[tokio::test]
async fn a_generation_follows_its_prompt_and_what_it_says_itself() {
    let stage = Stage::new("").await;
    // Longer than a feed.
    let prompt = [1, 2, 3, 4, 5, 6, 7, 0, 1];
    let request = GenerateRequest { fusion: adaptive(Some(0.9), false), ..request(&prompt, 15, 3) };
    let replies = stage.generate(request.clone()).await.unwrap();
    let models = stage.members.each_ref().map(|member| &member.model);
    let said = |prefix: &[u32], token: u32| {
        let of = |model: &crate::testing::scripted_replica::ScriptedModel| {
            model.rows([prefix].into_iter()).row(0).unwrap().log_prob(token).unwrap()
        };
        models.iter().map(|model| of(model)).collect::<Vec<f64>>()
    };
    let mut text: Vec<u32> = Vec::new();
    let mut seen = Vec::new();
    for token in prompt {
        seen.push(said(&text, token));
        text.push(token);
    }
    for reply in replies.iter().filter(|reply| reply.token.is_some()) {
        let token = reply.token.as_ref().unwrap();
        let (_, weights) = by_the_book(&seen, 0.9);
        for (member, expected) in token.members.iter().zip(weights) {
            assert!((member.weight - expected).abs() < 1e-9, "{member:?} {expected}");
        }
        seen.push(said(&text, token.id));
        text.push(token.id);
        let expected = *by_the_book(&seen, 0.9).0.last().unwrap();
        assert!((token.log_prob.unwrap() - expected).abs() < 1e-9);
    }
    // The same without log-probabilities: what is drawn does not depend on what is told of it.
    let quiet = stage.generate(GenerateRequest { log_probs: false, ..request }).await.unwrap();
    let tokens = |replies: &[GenerateReply]| {
        replies.iter().filter_map(|reply| Some(reply.token.as_ref()?.id)).collect::<Vec<u32>>()
    };
    assert_eq!(tokens(&quiet), tokens(&replies));
}

#[tokio::test]
async fn a_prediction_follows_its_prefix() {
    let stage = Stage::new("").await;
    let prefix: Vec<u32> = vec![1, 2, 3, 4, 5, 6, 7];
    let request = PredictRequest { prefix: ids(&prefix), top_n: Some(8), fusion: adaptive(None, false) };
    let reply = stage.predict(request).await.unwrap();
    let score = ScoreRequest { input: ids(&prefix), fusion: adaptive(None, false), per_token: false };
    let score = stage.score(score).await.unwrap();
    for (member, score) in reply.members.iter().zip(&score.members) {
        assert!((member.weight - score.weight).abs() < 1e-12, "{member:?} {score:?}");
    }
    let sum: f64 = reply.candidates.iter().map(|candidate| candidate.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn who_is_lost_is_out_and_the_others_follow_the_text() {
    let stage = Stage::new("").await;
    stage.members[0].follow(|read| if read == 6 { Act::Die } else { Act::Answer });
    let request = GenerateRequest { fusion: adaptive(None, false), ..request(&[1, 2], 12, 3) };
    let replies = stage.generate(request).await.unwrap();
    for reply in replies.iter().filter(|reply| reply.token.is_some()) {
        let token = reply.token.as_ref().unwrap();
        let sum: f64 = token.members.iter().map(|member| member.weight).sum();
        assert!((sum - 1.0).abs() < 1e-12 && token.log_prob.unwrap().is_finite());
    }
    assert_eq!(participation(replies.last().unwrap()).missing[0].name, "alto");
}
