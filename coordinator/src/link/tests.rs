//! The gRPC member against a scripted worker over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::RowFormat;
use chorus_text::Vocabulary;
use futures::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::network::Sockets;
use crate::plan::{Ask, Plan, Positions};
use crate::replica::{Answer, Origin};
use crate::testing::scripted_worker::{Manner, ScriptedWorker};

/// Long enough that only what never happens takes longer.
const NEVER: Duration = Duration::from_secs(60);

fn vocabulary() -> Vocabulary {
    Vocabulary::train_characters("abcdefgh").unwrap()
}

fn member(worker: &ScriptedWorker, agreement: &Arc<Agreement>) -> GrpcReplica {
    let network: Arc<dyn Network> = Arc::new(Sockets::default());
    GrpcReplica::connect(&network, "alto", &worker.url(), None, NEVER, agreement, &Doubts::default()).unwrap()
}

async fn becomes(member: &GrpcReplica, what: impl FnMut(&Presence) -> bool) -> Presence {
    let mut presence = member.presence();
    let reached = timeout(NEVER, presence.wait_for(what)).await.expect("it never came to that");
    reached.unwrap().clone()
}

fn next() -> Ask {
    Ask::next_row(RowFormat::F32)
}

fn each() -> Ask {
    Plan::reference().each()
}

fn feed(session: SessionId, tokens: &[u32], ask: Ask) -> Feed {
    Feed {
        session,
        step: 1,
        tokens: tokens.to_vec(),
        ask,
        plan: PlanKind::Dense,
        snapshot: false,
        timeout: NEVER,
        traceparent: None,
    }
}

#[tokio::test]
async fn a_frame_carries_everything_that_is_queued() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    let sessions = 1..=30;
    sessions.clone().for_each(|session| member.open(session, Origin::Start));
    // On one thread nothing is written before all of them are queued.
    let feeds = sessions.map(|session| member.feed(feed(session, &[2, session as u32 % 8], next())));
    let answers = timeout(NEVER, join_all(feeds)).await.unwrap();
    for (session, answer) in (1..=30).zip(answers) {
        let expected = worker.model.answer(&next(), &[2, session % 8], 2);
        assert_eq!(answer.unwrap().answer, expected);
    }
    let frames: Vec<usize> = worker.frames().iter().map(|frame| frame.operations.len()).collect();
    assert_eq!(frames, [60]);
}

#[tokio::test]
async fn every_ask_is_answered_to_the_bit() {
    let worker = ScriptedWorker::start(&vocabulary(), 3, Manner::Faithful);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    let top = |positions, k| Ask::Top { positions, k, log_threshold: Some(0.2_f64.ln()) };
    let asks = [
        Ask::Nothing,
        next(),
        each(),
        Ask::Targets,
        top(Positions::Next, 2),
        top(Positions::Each, 0),
        Ask::Ids([0, 7].into()),
        Ask::Draw { uniform: 0.7 },
    ];
    for (session, ask) in (1..).zip(asks) {
        member.open(session, Origin::Start);
        let answer = member.feed(feed(session, &[1, 0, 7], ask.clone())).await;
        assert_eq!(answer.unwrap().answer, worker.model.answer(&ask, &[1, 0, 7], 3), "{ask:?}");
    }
}

#[tokio::test]
async fn a_killed_worker_fails_what_waits_at_once_and_is_found_again() {
    let mut worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Silent);
    let member = member(&worker, &Arc::default());
    let before = becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    let waiting = tokio::spawn(member.feed(feed(1, &[1], next())));
    worker.until_open(1).await;
    worker.kill();
    let error = timeout(NEVER, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ReplicaError::Lost { .. }), "{error:?}");
    let down = becomes(&member, |presence| !presence.is_up()).await;
    assert!(matches!(&down, Presence::Down { reason } if !reason.is_empty()), "{down:?}");
    let error = member.feed(feed(2, &[1], Ask::Nothing)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Lost { .. }), "nobody is asked: {error:?}");

    worker.start_again(Manner::Faithful);
    let after = becomes(&member, Presence::is_up).await;
    assert_ne!(before, after, "another incarnation");
    let mut lost = feed(1, &[1], Ask::Nothing);
    lost.step = 2;
    assert_eq!(member.feed(lost).await.unwrap_err(), ReplicaError::UnknownSession);
    member.open(3, Origin::Start);
    assert_eq!(member.feed(feed(3, &[1], Ask::Nothing)).await.unwrap().answer, Answer::Advanced);
}

#[tokio::test]
async fn another_vocabulary_is_refused_with_both_fingerprints() {
    let agreement = Arc::default();
    let first = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let first = member(&first, &agreement);
    becomes(&first, Presence::is_up).await;

    let other = Vocabulary::train_characters("xyz").unwrap();
    let worker = ScriptedWorker::start(&other, 2, Manner::Faithful);
    let second = member(&worker, &agreement);
    let presence = becomes(&second, |presence| matches!(presence, Presence::Refused { .. })).await;
    assert!(presence.reason().contains(other.fingerprint()), "{presence:?}");
    assert!(presence.reason().contains(vocabulary().fingerprint()), "{presence:?}");
    second.open(1, Origin::Start);
    assert!(second.feed(feed(1, &[1], Ask::Nothing)).await.is_err());
    assert!(worker.frames().is_empty(), "it is never asked");
}

#[tokio::test]
async fn numbers_that_are_not_finite_leave_the_link_alone() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::NotFinite);
    let member = member(&worker, &Arc::default());
    let before = becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    let error = member.feed(feed(1, &[1], next())).await.unwrap_err();
    assert!(matches!(error, ReplicaError::NotFinite { .. }), "{error:?}");
    let mut again = feed(1, &[1], next());
    again.step = 2;
    let error = member.feed(again).await.unwrap_err();
    assert!(matches!(error, ReplicaError::NotFinite { .. }), "the session is still there: {error:?}");
    assert_eq!(*member.presence().borrow(), before);
}

#[tokio::test]
async fn a_worker_whose_device_is_not_sound_is_down_for_that_reason_until_it_says_otherwise() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let member = member(&worker, &Arc::default());
    let before = becomes(&member, Presence::is_up).await;
    let attachment = member.line.attachment().unwrap();
    member.open(1, Origin::Start);
    member.feed(feed(1, &[1], next())).await.unwrap();
    let frames = worker.frames().len();

    worker.say(Some("the logits are not finite"));
    let down = becomes(&member, |presence| !presence.is_up()).await;
    let reason = "its device is not sound: the logits are not finite".to_owned();
    assert_eq!(down, Presence::Down { reason: reason.clone() });
    member.open(2, Origin::Start);
    let error = member.feed(feed(2, &[1], next())).await.unwrap_err();
    assert_eq!(error, ReplicaError::Lost { reason });
    member.close(1);
    assert_eq!(member.silence(), Duration::ZERO);

    worker.say(None);
    assert_eq!(becomes(&member, Presence::is_up).await, before);
    let forgotten = Feed { step: 2, ..feed(1, &[1], next()) };
    assert_eq!(member.feed(forgotten).await.unwrap_err(), ReplicaError::UnknownSession);
    member.open(3, Origin::Start);
    member.feed(feed(3, &[1], next())).await.unwrap();
    let since: Vec<u64> = worker.frames()[frames..]
        .iter()
        .flat_map(|frame| frame.operations.iter().map(|operation| operation.session))
        .collect();
    assert_eq!(since, [1, 3, 3], "nothing was sent while it was down");
    assert!(Arc::ptr_eq(&attachment, &member.line.attachment().unwrap()), "the stream stays");
}

#[tokio::test]
async fn what_waits_for_a_device_that_is_not_sound_fails_at_once_with_a_short_reason() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Silent);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    let waiting = tokio::spawn(member.feed(feed(1, &[1], next())));
    worker.until_open(1).await;
    worker.say(Some(&"no ".repeat(1_000_000)));
    let ReplicaError::Lost { reason } = timeout(NEVER, waiting).await.unwrap().unwrap().unwrap_err() else {
        panic!("its device is lost");
    };
    assert!(reason.starts_with("its device is not sound: no no") && reason.len() < 400, "{reason}");
    assert_eq!(member.presence().borrow().reason(), reason);
}

#[tokio::test]
async fn a_worker_may_say_in_its_first_frame_that_its_device_is_not_sound() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    worker.say(Some("stuck"));
    let member = member(&worker, &Arc::default());
    let reason = "its device is not sound: stuck";
    becomes(&member, |presence| presence.reason() == reason).await;
    worker.say(None);
    becomes(&member, Presence::is_up).await;
}

#[tokio::test]
async fn an_answer_of_another_shape_resets_the_link() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Short);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    let error = member.feed(feed(1, &[1], next())).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Protocol { .. }), "{error:?}");
    let down = becomes(&member, |presence| !presence.is_up()).await;
    assert_eq!(down.reason(), "it broke the protocol");
    becomes(&member, Presence::is_up).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_down_after_a_few_deadlines() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Silent);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    for session in 1..=4 {
        member.open(session, Origin::Start);
        let waiting = member.feed(feed(session, &[1], next()));
        assert!(timeout(Duration::from_millis(5), waiting).await.is_err());
        member.late();
    }
    let down = becomes(&member, |presence| !presence.is_up()).await;
    assert_eq!(down.reason(), "it hangs: it does not answer on a link that is open");
}

#[tokio::test]
async fn the_rows_of_a_huge_vocabulary_pass() {
    let words = (0..100_000).map(|word| format!("w{word}")).collect();
    let vocabulary = Vocabulary::from_word_list(words).unwrap();
    let worker = ScriptedWorker::start(&vocabulary, 1, Manner::Flat);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    let answer = member.feed(feed(1, &[99_999; 64], each())).await.unwrap();
    let Answer::Rows(rows) = answer.answer else { panic!("rows were asked for") };
    assert_eq!((rows.len(), rows.row(63).unwrap().len()), (64, 100_000));
}

#[tokio::test]
async fn goodbye_delivers_what_is_queued() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let member = member(&worker, &Arc::default());
    becomes(&member, Presence::is_up).await;
    member.open(1, Origin::Start);
    member.feed(feed(1, &[1], Ask::Nothing)).await.unwrap();
    worker.until_open(1).await;
    member.close(1);
    member.disconnect().await;
    worker.until_open(0).await;
    assert!(member.feed(feed(1, &[1], Ask::Nothing)).await.is_err());
    member.disconnect().await;
}

#[test]
fn an_address_that_is_none_is_refused() {
    for address in ["", "127.0.0.1:1 2", "/only/a/path"] {
        let error = connect::route(address, None, NEVER).unwrap_err();
        assert!(error.to_string().contains("http://host:port"), "{error}");
    }
}
