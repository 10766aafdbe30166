//! Steps without some of the members: where they are allowed, where nothing depends on them, and where all are wanted.

use std::time::Duration;

use chorus_proto::v1::{FusionOptions, Rule, TokenRange};
use tokio::time::Instant;
use tonic::Code;

use super::*;
use crate::testing::scripted_replica::Act;

const QUICK: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(100);

/// The second member of three takes long over every answer; it has the least weight.
async fn with_a_slow_member(style: Style, vocabulary: &Vocabulary, toml: &str) -> Stage {
    let stage = Stage::with(style, vocabulary, toml).await;
    for (member, takes) in stage.members.iter().zip([QUICK, SLOW, QUICK]) {
        member.follow(move |_| Act::AnswerAfter(takes));
    }
    stage
}

fn greedy(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    let sampling = SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() };
    GenerateRequest { sampling: Some(sampling), log_probs: false, ..request(prompt, max_tokens, 1) }
}

fn vote(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    let fusion = FusionOptions { rule: Rule::ThresholdVote.into(), ..FusionOptions::default() };
    GenerateRequest { fusion: Some(fusion), sampling: None, ..greedy(prompt, max_tokens) }
}

fn whole(mut request: GenerateRequest, allow_degraded: bool) -> GenerateRequest {
    let fusion = request.fusion.get_or_insert_default();
    fusion.allow_degraded = Some(allow_degraded);
    request
}

#[tokio::test(start_paused = true)]
async fn what_a_straggler_can_t_change_does_not_wait_for_it() {
    for vocabulary in [vocabulary(), large_vocabulary()] {
        for request in [greedy(&[1, 2], 60), vote(&[1, 2], 60)] {
            let patient =
                with_a_slow_member(Style::Language, &vocabulary, "[resilience]\nearly_decision = false")
                    .await;
            let begin = Instant::now();
            let expected = patient.generate(request.clone()).await.unwrap();
            let unhurried = begin.elapsed();
            assert!(missing(&expected).iter().all(Vec::is_empty));

            let hasty = with_a_slow_member(Style::Language, &vocabulary, "").await;
            let begin = Instant::now();
            let replies = hasty.generate(request).await.unwrap();
            assert_eq!(tokens(&replies), tokens(&expected), "the text is the same");
            assert!(begin.elapsed() < unhurried, "{:?} of {unhurried:?}", begin.elapsed());
            let early = missing(&replies).iter().filter(|missing| *missing == &["bass"]).count();
            assert!(
                (1..60).contains(&early),
                "{early}: where it could have changed something it was waited for"
            );
            let reason =
                &replies.iter().flat_map(|reply| &participation(reply).missing).next().unwrap().reason;
            assert!(reason.contains("the others had decided"), "{reason}");
            // It read everything, once.
            hasty.members[1].until_idle().await;
            let read = &hasty.members[1].histories()[0];
            let all: Vec<u32> = [1, 2].into_iter().chain(tokens(&replies)).collect();
            assert!(all.starts_with(read) && read.len() > 20, "{} tokens", read.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn members_of_a_like_speed_are_all_waited_for() {
    let stage = with_a_slow_member(Style::Language, &vocabulary(), "").await;
    stage.members[1].follow(|_| Act::AnswerAfter(QUICK + QUICK / 2));
    let replies = stage.generate(greedy(&[1, 2], 60)).await.unwrap();
    assert!(missing(&replies).iter().all(Vec::is_empty));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_out_before_twice_what_the_first_answer_took_a_token_ago() {
    let stage = with_a_slow_member(Style::Language, &vocabulary(), "").await;
    for (member, quick) in stage.members.iter().zip([QUICK, 3 * QUICK, QUICK]) {
        // Every other token takes all of them as long, so that it is no surprise.
        member
            .follow(move |read| Act::AnswerAfter(if read <= 3 || read % 2 == 0 { 2 * QUICK } else { quick }));
    }
    let replies = stage.generate(greedy(&[1, 2], 60)).await.unwrap();
    assert!(missing(&replies).iter().all(Vec::is_empty));
}

#[tokio::test(start_paused = true)]
async fn where_a_probability_is_wanted_nobody_is_left_out() {
    let stage = with_a_slow_member(Style::Language, &vocabulary(), "").await;
    for request in [
        GenerateRequest { log_probs: true, ..greedy(&[1, 2], 20) },
        request(&[1, 2], 20, 3),
        whole(greedy(&[1, 2], 20), false),
    ] {
        let replies = stage.generate(request).await.unwrap();
        assert!(missing(&replies).iter().all(Vec::is_empty));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_out_below_the_quorum() {
    let stage = with_a_slow_member(Style::Language, &vocabulary(), "[quorum]\nmembers = 3").await;
    let replies = stage.generate(greedy(&[1, 2], 60)).await.unwrap();
    assert!(missing(&replies).iter().all(Vec::is_empty));
}

#[tokio::test]
async fn a_request_that_wants_everybody_fails_without_one_and_says_so() {
    let stage = Stage::new("").await;
    stage.members[1].follow(|read| if read == 5 { Act::Die } else { Act::Answer });
    let error = stage.generate(whole(request(&[0, 0], 10, 4), false)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        error.message(),
        "the request wants every member (fusion.allow_degraded is false); missing: bass (killed)"
    );
    // Nor does it begin without one.
    let fusion = Some(FusionOptions { allow_degraded: Some(false), ..FusionOptions::default() });
    let score = ScoreRequest { input: ids(&[1, 2]), fusion: fusion.clone(), per_token: false };
    assert_eq!(stage.score(score.clone()).await.unwrap_err().code(), Code::Unavailable);
    let predict = PredictRequest { prefix: ids(&[1, 2]), top_n: None, fusion };
    assert_eq!(stage.predict(predict.clone()).await.unwrap_err().code(), Code::Unavailable);

    let degraded = stage.generate(whole(request(&[0, 0], 10, 4), true)).await.unwrap();
    assert!(missing(&degraded).iter().all(|missing| missing == &["bass"]));
    stage.members[1].start();
    stage.members[1].follow(|_| Act::Answer);
    assert!(stage.score(score).await.is_ok() && stage.predict(predict).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn messages_say_from_which_token_on_a_member_is_back() {
    let stage = Stage::new("").await;
    for member in &stage.members {
        member.follow(|_| Act::AnswerAfter(QUICK));
    }
    let bass = Arc::clone(&stage.members[1]);
    stage.members[0].follow(move |read| {
        if read == 12 {
            bass.start();
            bass.follow(|_| Act::Answer);
        }
        Act::AnswerAfter(QUICK)
    });
    stage.members[1].follow(|read| if read == 6 { Act::Die } else { Act::AnswerAfter(QUICK) });
    let replies = stage.generate(request(&[0, 0], 20, 4)).await.unwrap();
    let back: Vec<usize> =
        (0..20).filter(|index| participation(&replies[*index]).rejoined == ["bass"]).collect();
    let [back] = back[..] else { panic!("{back:?}") };
    let expected: Vec<&[&str]> =
        (0..20).map(|index| if (4..back).contains(&index) { &["bass"][..] } else { &[] }).collect();
    assert_eq!(missing(&replies), expected);
    let ranges = &participation(replies.last().unwrap()).missing[0].tokens;
    assert_eq!(ranges, &[TokenRange { first: 4, end: back as u32 }]);
}
