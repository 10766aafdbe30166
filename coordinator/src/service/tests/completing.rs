//! Generations that are answered once.

use std::time::Duration;

use chorus_proto::v1::{FusionOptions, Rule, generation_end::Reason};
use futures::FutureExt;
use tonic::Code;

use super::*;
use crate::testing::scripted_replica::Act;

#[tokio::test]
async fn one_message_says_what_the_stream_says() {
    let stage = Stage::new("").await;
    let vote = FusionOptions { rule: Rule::ThresholdVote.into(), ..FusionOptions::default() };
    let vote =
        GenerateRequest { fusion: Some(vote), sampling: None, log_probs: false, ..request(&[1, 2], 9, 5) };
    let text = joined(&stage.generate(request(&[0], 40, 6)).await.unwrap());
    let stopped = GenerateRequest { stop: vec![text[12..15].to_owned()], ..request(&[0], 40, 6) };
    for request in [request(&[3, 1], 12, 7), vote, stopped] {
        let streamed = stage.generate(request.clone()).await.unwrap();
        let whole = stage.complete(request).await.unwrap();
        let streamed_tokens: Vec<_> = streamed.iter().filter_map(|reply| reply.token.clone()).collect();
        assert_eq!(whole.tokens, streamed_tokens);
        assert_eq!(whole.text, joined(&streamed));
        let last = streamed.last().unwrap();
        assert_eq!((whole.participation, whole.end), (last.participation.clone(), last.end.clone()));
    }
}

#[tokio::test]
async fn a_member_that_is_lost_on_the_way_is_named() {
    let stage = Stage::new("").await;
    stage.members[1].follow(|read| {
        if read == 4 { Act::Fail(ReplicaError::Lost { reason: "unplugged".to_owned() }) } else { Act::Answer }
    });
    let reply = stage.complete(request(&[0], 8, 1)).await.unwrap();
    let participation = reply.participation.unwrap();
    assert_eq!(participation.participants, ["alto", "cello"]);
    let missing = &participation.missing[0];
    assert!(missing.name == "bass" && missing.reason.contains("of 8 tokens"), "{missing:?}");
    assert!(missing.reason.contains("unplugged"), "{missing:?}");
    assert_eq!((reply.tokens.len(), reply.end.unwrap().reason()), (8, Reason::MaxTokens));
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_who_hangs_up_is_forgotten() {
    let stage = Stage::new("").await;
    let error = stage.complete(request(&[8], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("prompt: "), "{}", error.message());
    stage.members[2].follow(|read| if read == 4 { Act::Hang } else { Act::Answer });
    let mut call = Box::pin(stage.complete(request(&[0], 100, 1)));
    while stage.members[2].feeds().len() < 3 {
        let early = call.as_mut().now_or_never();
        assert!(early.is_none(), "{early:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.ensemble.common.admission.in_progress(), 1);
    drop(call);
    for member in &stage.members {
        member.until_idle().await;
    }
    assert_eq!(stage.ensemble.common.admission.in_progress(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_stop_end_it() {
    let stage = Stage::new("").await;
    stage.members[0].follow(|_| Act::AnswerAfter(Duration::from_secs(2)));
    let mut hurried = Request::new(request(&[0], 100, 1));
    hurried.set_timeout(Duration::from_secs(3));
    let error = stage.service.complete(hurried).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    stage.ensemble.common.stop.cancel();
    assert_eq!(stage.complete(request(&[0], 100, 1)).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn the_status_counts_what_was_answered() {
    let stage = Stage::new("").await;
    stage.complete(request(&[0], 8, 1)).await.unwrap();
    stage.generate(request(&[0], 5, 1)).await.unwrap();
    let score = ScoreRequest { input: request(&[1, 2, 3], 1, 1).prompt, ..ScoreRequest::default() };
    stage.score(score).await.unwrap();
    stage.complete(request(&[8], 1, 1)).await.unwrap_err();
    let activity = stage.status().await.activity.unwrap();
    assert_eq!((activity.generated_tokens, activity.scored_tokens), (13, 3));
    let counts = (activity.first_token.unwrap().count, activity.next_token.unwrap().count);
    assert_eq!(counts, (2, 11));
}
