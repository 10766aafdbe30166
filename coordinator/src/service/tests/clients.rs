//! Clients that hang up, never read, ask for too much, or read on to the end.

use std::time::Duration;

use chorus_proto::v1::{generation_end::Reason, member_status::Health};
use tonic::Code;

use super::*;
use crate::testing::scripted_replica::Act;

#[tokio::test]
async fn a_client_that_hangs_up_closes_its_sessions_everywhere() {
    let stage = Stage::new("").await;
    stage.members[2].follow(|read| if read == 4 { Act::Hang } else { Act::Answer });
    let mut stream = stage.stream(request(&[0], 100, 1)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(stage.status().await.sessions, 1);
    drop(stream);
    for member in &stage.members {
        member.until_idle().await;
    }
    stage.ensemble.common.admission.idle().await;
    assert_eq!(stage.status().await.sessions, 0);
    assert_eq!(stage.members[2].late_feeds(), 0, "a client that hangs up is not the member's fault");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up_and_told_so() {
    let stage = Stage::new("").await;
    let stream = stage.stream(request(&[0], 100, 1)).await.unwrap();
    stage.ensemble.common.admission.idle().await;
    for member in &stage.members {
        member.until_idle().await;
    }
    let replies: Vec<_> = stream.collect().await;
    let error = replies.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 32);
}

#[tokio::test]
async fn more_requests_than_allowed_are_turned_away_with_a_sentence() {
    let stage = Stage::new("[limits]\nmax_sessions = 1\nmax_waiting = 0").await;
    stage.members[0].follow(|_| Act::Hang);
    let stream = stage.stream(request(&[0], 1, 1)).await.unwrap();
    let error = stage.generate(request(&[0], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("limits.max_sessions"), "{}", error.message());
    assert!(error.message().ends_with("try again after 1 s"), "{}", error.message());
    assert_eq!(error.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    drop(stream);
    stage.ensemble.common.admission.idle().await;
    stage.members[0].follow(|_| Act::Answer);
    stage.generate(request(&[0], 1, 1)).await.unwrap();
}

#[tokio::test]
async fn a_long_prompt_goes_in_feeds_that_the_member_takes() {
    let stage = Stage::new("").await;
    let prompt: Vec<u32> = (0..11).map(|index| index % 8).collect();
    let replies = stage.generate(request(&prompt, 3, 1)).await.unwrap();
    assert_eq!(stage.members[0].feeds(), [4, 4, 3, 1, 1]);
    stage.assert_fused_in_process(&prompt, &replies);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let stage = Stage::new("").await;
    let whole = joined(&stage.generate(request(&[0], 40, 6)).await.unwrap());
    let stop = whole[12..15].to_owned();
    let mut stopped = request(&[0], 40, 6);
    stopped.stop = vec![stop.clone()];
    let replies = stage.generate(stopped).await.unwrap();
    assert_eq!(joined(&replies), whole.split_once(&stop).unwrap().0);
    assert_eq!(replies.last().unwrap().end.as_ref().unwrap().reason(), Reason::StopString);
}

#[tokio::test]
async fn text_and_token_ids_are_one_and_the_same_prompt() {
    let stage = Stage::new("").await;
    let by_ids = stage.generate(request(&vocabulary().encode("hag").unwrap(), 9, 1)).await.unwrap();
    let mut by_text = request(&[], 9, 1);
    by_text.prompt = text("hag");
    assert_eq!(stage.generate(by_text).await.unwrap(), by_ids);
}

#[tokio::test]
async fn a_callers_mistake_is_found_before_any_member_hears_of_it() {
    let stage = Stage::new("").await;
    let error = stage.generate(request(&[8], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("prompt: "), "{}", error.message());
    assert!(stage.members[0].feeds().is_empty());
    assert_eq!(stage.status().await.sessions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_ends_what_runs_and_takes_nothing_more() {
    let stage = Stage::new("").await;
    stage.members[0].follow(|_| Act::AnswerAfter(Duration::from_secs(2)));
    let mut stream = stage.stream(request(&[0], 100, 1)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stage.ensemble.common.draining.cancel();
    assert_eq!(stage.generate(request(&[0], 1, 1)).await.unwrap_err().code(), Code::Unavailable);
    stream.next().await.unwrap().expect("what runs goes on");
    stage.ensemble.common.stop.cancel();
    let rest: Vec<_> = stream.collect().await;
    assert_eq!(rest.last().unwrap().as_ref().unwrap_err().code(), Code::Unavailable);
    stage.ensemble.common.admission.idle().await;
}

#[tokio::test]
async fn status_says_who_is_there() {
    let stage = Stage::new("[quorum]\nmembers = 2\nweight = 0.5").await;
    stage.members[2].die();
    let status = stage.status().await;
    assert!(status.serving, "two members with half of the weight are a quorum");
    let health: Vec<_> = status.members.iter().map(|member| member.health()).collect();
    assert_eq!(health, [Health::Up, Health::Up, Health::Down]);
    let cello = &status.members[2];
    assert_eq!((cello.reason.as_str(), cello.weight, cello.parameters), ("killed", 3.0, 7));
    assert_eq!((cello.model.as_str(), cello.replicas[0].device.as_str()), ("model of cello", "paper"));
    assert_eq!(status.vocabulary_size, 8);
    assert_eq!(status.vocabulary_fingerprint, vocabulary().fingerprint());
    assert_eq!(status.limits.unwrap().max_sessions, 128);
    stage.members[1].die();
    assert!(!stage.status().await.serving);
}
