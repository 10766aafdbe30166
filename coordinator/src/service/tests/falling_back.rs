//! Who answers when the quorum is gone, and how that is told.

use chorus_proto::v1::{Fallback, FusionOptions, TokenRange};
use tonic::Code;

use super::*;

const CONFIG: &str = "[quorum]\nmembers = 3\n[fallback]\nname = 'student'\naddress = 'http://127.0.0.1:9'";

async fn stage() -> Stage {
    let stage = Stage::new(CONFIG).await;
    stage.student.start();
    stage
}

fn fallback(participation: &Participation) -> Option<Vec<TokenRange>> {
    let fallback = participation.fallback.as_ref()?;
    assert_eq!(fallback.name, STUDENT);
    assert_eq!(participation.expectation, None);
    Some(fallback.tokens.clone())
}

fn names(participation: &Participation) -> Vec<&str> {
    participation.missing.iter().map(|missing| missing.name.as_str()).collect()
}

/// The token that the student alone draws.
fn drawn(stage: &Stage, prefix: &[u32], seed: u64, index: u32) -> u32 {
    let row = stage.student.model.logits(prefix);
    chorus_simd::draw(&row, chorus_simd::norm(&row), uniform(seed, index)) as u32
}

#[tokio::test]
async fn a_generation_that_loses_its_quorum_is_carried_on_and_says_by_whom() {
    let stage = stage().await;
    stage.members[1].follow(|read| if read >= 5 { Act::Die } else { Act::Answer });
    let prompt = [1, 2];
    let replies =
        stage.generate(GenerateRequest { log_probs: false, ..request(&prompt, 8, 11) }).await.unwrap();
    let mut prefix = prompt.to_vec();
    let mut by_fallback = Vec::new();
    for reply in replies.iter().filter(|reply| reply.token.is_some()) {
        let token = reply.token.as_ref().unwrap();
        let participation = participation(reply);
        if fallback(participation).is_some() {
            assert_eq!(participation.participants, [STUDENT]);
            assert_eq!(names(participation), NAMES);
            assert_eq!(token.id, drawn(&stage, &prefix, 11, token.index));
            by_fallback.push(token.index);
        } else {
            assert_eq!(participation.participants, NAMES);
        }
        prefix.push(token.id);
    }
    assert!(!by_fallback.is_empty() && by_fallback[0] > 0, "{by_fallback:?}");
    assert_eq!(*by_fallback.last().unwrap(), 7);
    let whole = participation(replies.last().unwrap());
    assert_eq!(fallback(whole).unwrap(), [TokenRange { first: by_fallback[0], end: 8 }]);
    assert_eq!(names(whole), NAMES);
    assert!(whole.missing[1].reason.contains("killed"), "{whole:?}");
    assert!(whole.missing[0].reason.ends_with("the others are no quorum"), "{whole:?}");
}

#[tokio::test]
async fn scores_and_predictions_are_those_of_the_fallback_alone() {
    let stage = stage().await;
    stage.members[0].die();
    let tokens = [1, 7, 0, 3];
    // What a request says of the members' weights says nothing of the fallback.
    let weights = NAMES.iter().map(|name| ((*name).to_owned(), 1.0)).collect();
    let fusion = Some(FusionOptions { weights, ..FusionOptions::default() });
    let request = ScoreRequest { input: ids(&tokens), fusion: fusion.clone(), per_token: true };
    let reply = stage.score(request).await.unwrap();
    assert_eq!(fallback(reply.participation.as_ref().unwrap()), Some(Vec::new()));
    for (place, score) in reply.token_scores.iter().enumerate() {
        let row = stage.student.model.rows([&tokens[..place]].into_iter());
        let expected = row.row(0).unwrap().log_prob(score.id).unwrap();
        assert!((score.log_prob.unwrap() - expected).abs() < 1e-12);
    }
    let request = PredictRequest { prefix: ids(&tokens), top_n: Some(3), fusion };
    let reply = stage.predict(request).await.unwrap();
    assert_eq!(fallback(reply.participation.as_ref().unwrap()), Some(Vec::new()));
    let row = stage.student.model.rows([tokens.as_slice()].into_iter());
    assert_eq!(reply.candidates[0].id, row.row(0).unwrap().top(1)[0].id);
    let status = stage.status().await;
    assert!(status.serving);
    assert_eq!(status.fallback.unwrap().name, STUDENT);
}

#[tokio::test]
async fn nobody_falls_back_while_there_is_a_quorum_or_where_everybody_is_wanted() {
    let stage = stage().await;
    let replies = stage.generate(request(&[1, 2], 5, 1)).await.unwrap();
    assert!(replies.iter().all(|reply| participation(reply).fallback.is_none()));
    assert!(stage.student.asks().is_empty(), "it is not even asked");
    stage.members[2].die();
    let fusion = Some(FusionOptions { allow_degraded: Some(false), ..FusionOptions::default() });
    let error = stage.generate(GenerateRequest { fusion, ..request(&[1, 2], 5, 1) }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().starts_with("the request wants every member"), "{error:?}");
}

#[tokio::test]
async fn where_the_fallback_is_gone_too_both_are_named() {
    let stage = stage().await;
    stage.members[0].die();
    stage.student.die();
    let error = stage.score(ScoreRequest { input: ids(&[1]), ..ScoreRequest::default() }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        error.message(),
        "2 of 3 members take part, the quorum is 3; missing: alto (killed); nor can the fallback answer: 0 of 1 members take \
         part, the quorum is 1; missing: student (killed)"
    );
    assert!(!stage.status().await.serving);
}

#[tokio::test]
async fn a_whole_answer_says_it_too() {
    let stage = stage().await;
    stage.members[0].die();
    let reply = stage.complete(request(&[1, 2], 4, 1)).await.unwrap();
    let expected = Fallback { name: STUDENT.to_owned(), tokens: vec![TokenRange { first: 0, end: 4 }] };
    assert_eq!(reply.participation.unwrap().fallback, Some(expected));
}
