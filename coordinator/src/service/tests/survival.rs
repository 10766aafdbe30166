//! Members are lost, late or wrong in the middle of generations, and come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chorus_proto::v1::generation_end::Reason;
use tonic::Code;

use super::*;
use crate::replica::ReplicaError;
use crate::testing::scripted_replica::Act;

/// A moment for each step, so that what happens beside it has a place in time.
fn pace(stage: &Stage) {
    for member in &stage.members {
        member.follow(|_| Act::AnswerAfter(Duration::from_millis(10)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_member_is_named_and_is_back_once_it_has_caught_up() {
    let stage = Stage::new("").await;
    pace(&stage);
    stage.members[1].follow(|read| match read {
        8 => Act::Die,
        _ => Act::AnswerAfter(Duration::from_millis(10)),
    });
    let bass = Arc::clone(&stage.members[1]);
    stage.members[0].follow(move |read| {
        if read == 15 {
            bass.start();
            bass.follow(|_| Act::Answer);
        }
        Act::AnswerAfter(Duration::from_millis(10))
    });
    let replies = stage.generate(request(&[1, 2, 3], 30, 4)).await.unwrap();

    let end = replies.last().unwrap().end.as_ref().unwrap();
    assert_eq!((end.reason(), end.generated_tokens, end.prompt_tokens), (Reason::MaxTokens, 30, 3));
    // Token i is chosen when 3 + i tokens are read: lost at the one that 8 tokens precede, back after the 15th.
    let missing = missing(&replies);
    for (index, missing) in missing.iter().enumerate() {
        let expected: &[&str] = if (5..=12).contains(&index) { &["bass"] } else { &[] };
        assert_eq!(missing, expected, "token {index}");
    }
    stage.assert_fused_in_process(&[1, 2, 3], &replies);

    // Nobody read anything twice or left anything out.
    let mut read = vec![1, 2, 3];
    read.extend(&tokens(&replies)[..29]);
    assert_eq!(stage.members[0].histories(), [read.clone()]);
    assert_eq!(stage.members[1].histories(), [read[..7].to_vec(), read]);
    let whole = participation(replies.last().unwrap());
    assert_eq!(whole.participants, ["alto", "cello"]);
    assert_eq!(whole.missing[0].reason, "took part in 22 of 30 tokens: killed");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_late_joins_a_running_generation() {
    let stage = Stage::new("").await;
    pace(&stage);
    stage.members[2].die();
    let cello = Arc::clone(&stage.members[2]);
    stage.members[0].follow(move |read| {
        if read == 6 {
            cello.start();
        }
        Act::AnswerAfter(Duration::from_millis(10))
    });
    let replies = stage.generate(request(&[0], 25, 4)).await.unwrap();
    let missing = missing(&replies);
    assert_eq!(missing[0], ["cello"]);
    assert!(missing.last().unwrap().is_empty());
    stage.assert_fused_in_process(&[0], &replies);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hangs_is_out_after_the_step_deadline() {
    let stage = Stage::new("[limits]\nstep_timeout_ms = 700").await;
    stage.members[0].follow(|read| if read == 6 { Act::Hang } else { Act::Answer });
    let start = tokio::time::Instant::now();
    let replies = stage.generate(request(&[0, 0], 10, 4)).await.unwrap();
    // The deadline of a step of one token: the configured time and the allowance for a token.
    assert_eq!(start.elapsed().as_millis(), 710);
    assert_eq!(missing(&replies)[4], ["alto"]);
    assert_eq!(participation(&replies[4]).missing[0].reason, "catching up (no answer within 710 ms)");
    assert_eq!(stage.members[0].late_feeds(), 1);
    stage.assert_fused_in_process(&[0, 0], &replies);
}

#[tokio::test]
async fn numbers_that_are_not_finite_put_a_member_out_of_the_step() {
    let stage = Stage::new("").await;
    let not_finite = || ReplicaError::NotFinite { what: "the logit of token 3 is NaN".to_owned() };
    stage.members[2].follow(move |_| Act::Fail(not_finite()));
    let replies = stage.generate(request(&[0, 0], 6, 4)).await.unwrap();
    assert!(missing(&replies).iter().all(|missing| missing == &["cello"]));
    assert!(participation(&replies[0]).missing[0].reason.contains("token 3 is NaN"));
    stage.assert_fused_in_process(&[0, 0], &replies);
}

#[tokio::test]
async fn below_quorum_a_generation_ends_and_names_who_is_missing() {
    let stage = Stage::new("[quorum]\nmembers = 3").await;
    stage.members[1].follow(|read| if read == 5 { Act::Die } else { Act::Answer });
    let mut stream = stage.stream(request(&[0, 0], 10, 4)).await.unwrap();
    let mut tokens = 0;
    let error = loop {
        match stream.next().await.expect("a last word") {
            Ok(reply) => tokens += u32::from(reply.token.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!((tokens, error.code()), (3, Code::Unavailable));
    assert!(error.message().contains("bass (killed)"), "{}", error.message());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn before_anybody_came_everything_is_unavailable() {
    let stage = Stage::before_anybody_came("");
    let error = stage.generate(request(&[0], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for name in NAMES {
        assert!(error.message().contains(name), "{}", error.message());
    }
    assert!(!stage.status().await.serving);
}

#[tokio::test]
async fn what_every_member_refuses_is_the_callers_mistake() {
    let stage = Stage::new("").await;
    for member in &stage.members {
        let message = "token 5 is not for me".to_owned();
        let refused = ReplicaError::Refused { message };
        member.follow(move |_| Act::Fail(refused.clone()));
    }
    let error = stage.generate(request(&[5], 1, 1)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "token 5 is not for me"));
}

#[tokio::test]
async fn a_refusal_beside_a_death_is_not_the_callers_mistake() {
    let stage = Stage::new("").await;
    let refused = ReplicaError::Refused { message: "token 5 is not for me".to_owned() };
    stage.members[0].follow(move |_| Act::Fail(refused.clone()));
    stage.members[1].follow(|_| Act::Die);
    stage.members[2].follow(|_| Act::Die);
    let error = stage.generate(request(&[5], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in ["alto (it refused the request: token 5 is not for me)", "bass (killed)"] {
        assert!(error.message().contains(part), "{}", error.message());
    }
}

#[tokio::test]
async fn a_refusal_of_the_only_member_that_is_up_is_not_the_callers_mistake() {
    let stage = Stage::new("").await;
    let refused = ReplicaError::Refused { message: "token 5 is not for me".to_owned() };
    stage.members[0].follow(move |_| Act::Fail(refused.clone()));
    stage.members[1].die();
    stage.members[2].die();
    let error = stage.generate(request(&[5], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in ["alto (it refused the request: token 5 is not for me)", "bass (killed)", "cello (killed)"] {
        assert!(error.message().contains(part), "{}", error.message());
    }
}

/// As after a pause of the reader that was longer than a worker keeps an idle session.
#[tokio::test]
async fn members_that_have_all_forgotten_the_session_read_it_again() {
    let stage = Stage::new("").await;
    stage.forget_once(9);
    let replies = stage.generate(request(&[1, 2, 3], 20, 4)).await.unwrap();
    assert_eq!(tokens(&replies).len(), 20);
    assert!(missing(&replies).iter().all(Vec::is_empty), "nobody is missing from any token");
    stage.assert_fused_in_process(&[1, 2, 3], &replies);
    let mut read = vec![1, 2, 3];
    read.extend(&tokens(&replies)[..19]);
    assert_eq!(stage.members[1].histories(), [read[..8].to_vec(), read]);
}

#[tokio::test(start_paused = true)]
async fn full_members_are_exhausted_and_not_unavailable() {
    let stage = Stage::new("").await;
    stage.members[2].die();
    for member in &stage.members[..2] {
        let full = ReplicaError::Exhausted { message: "100 sessions are open".to_owned() };
        member.follow(move |_| Act::Fail(full.clone()));
    }
    let error = stage.generate(request(&[5], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("alto"), "{}", error.message());
    assert!(error.message().contains("it has no room: 100 sessions are open"), "{}", error.message());
    assert!(error.message().ends_with("try again after 1 s"), "{}", error.message());
    assert_eq!(error.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");

    stage.members[1].follow(|_| Act::Die);
    let error = stage.generate(request(&[5], 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "one of them is dead: {}", error.message());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_late_again_and_again_stalls_a_generation_a_few_times_only() {
    let stage = Stage::new("[limits]\nstep_timeout_ms = 700").await;
    pace(&stage);
    // It reads what it missed, but it never answers together with the others.
    let step = Arc::new(AtomicUsize::new(0));
    let of_alto = Arc::clone(&step);
    stage.members[0].follow(move |read| {
        of_alto.store(read, Ordering::Relaxed);
        Act::AnswerAfter(Duration::from_millis(10))
    });
    let in_step = move |read| read == step.load(Ordering::Relaxed);
    stage.members[1].follow(move |read| if in_step(read) { Act::Hang } else { Act::Answer });
    let start = tokio::time::Instant::now();
    let replies = stage.generate(request(&[0; 20], 300, 4)).await.unwrap();
    // Four deadlines of a feed of ten tokens at most, and a moment for each step.
    let most = 4 * 800 + 305 * 10;
    assert!(start.elapsed().as_millis() < most, "{:?}", start.elapsed());
    let reason = &participation(&replies[299]).missing[0].reason;
    assert!(reason.contains("it stays out after 4 failures"), "{reason}");
}
