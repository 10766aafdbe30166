//! The engine with a scripted predictor: sessions that are carried elsewhere, and answers that nobody waits for.

use super::{
    scripted::{Harness, MODEL, code, logits_after, next, next_row, only},
    *,
};
use crate::operation::Ask;
use v1::ErrorCode;

fn feed_with_snapshot(step: u64, tokens: &[u32]) -> Operation {
    Operation::Feed(Feed { snapshot: true, ..Feed::new(step, tokens.to_vec(), next()) })
}

fn snapshot_of(harness: &mut Harness, step: u64, tokens: &[u32]) -> v1::Snapshot {
    harness.apply(1, 1, feed_with_snapshot(step, tokens));
    only(harness.run_all()).snapshot.unwrap()
}

#[test]
fn another_engine_goes_on_from_a_snapshot() {
    let mut first = Harness::new();
    first.open(1, 1);
    let snapshot = snapshot_of(&mut first, 1, &[1, 2, 3, 4, 5]);
    assert_eq!((snapshot.position, snapshot.model_fingerprint.as_str()), (5, MODEL));
    let mut second = Harness::new();
    second.apply(9, 4, Operation::Open(Origin::Snapshot(Box::new(snapshot))));
    second.feed(9, 4, 1, &[], next());
    assert_eq!(next_row(&only(second.run_all())), logits_after(&[1, 2, 3, 4, 5]));
    second.feed(9, 4, 2, &[6], next());
    assert_eq!(next_row(&only(second.run_all())), logits_after(&[1, 2, 3, 4, 5, 6]));
    let fed: usize = second.forwards().iter().flatten().map(Vec::len).sum();
    assert_eq!(fed, 1, "what is in the snapshot is not computed again");
}

#[test]
fn a_repeated_step_brings_its_snapshot_again_and_one_that_wants_none_brings_none() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    let first = snapshot_of(&mut harness, 1, &[1, 2]);
    assert_eq!(snapshot_of(&mut harness, 1, &[1, 2]), first);
    harness.feed(1, 1, 2, &[3], next());
    assert_eq!(only(harness.run_all()).snapshot, None);
    assert_eq!(snapshot_of(&mut harness, 3, &[]).position, 3);
}

#[test]
fn a_snapshot_that_can_t_be_used_is_refused_and_opens_nothing() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    let sound = snapshot_of(&mut harness, 1, &[1, 2]);
    let short = snapshot::seal(MODEL, 2, sound.state.slice(..7));
    let foreign = v1::Snapshot { model_fingerprint: "another".to_owned(), ..sound.clone() };
    let damaged = v1::Snapshot { checksum: sound.checksum ^ 1, ..sound };
    for (snapshot, message) in [
        (short, "session 2 can't be opened: no whole number of tokens"),
        (foreign, "open.snapshot.model_fingerprint is \"another\", allowed is \"scripted\""),
        (damaged, "open.snapshot.checksum is"),
    ] {
        harness.apply(1, 2, Operation::Open(Origin::Snapshot(Box::new(snapshot))));
        let answer = only(harness.run_all());
        assert_eq!((answer.step, code(&answer)), (0, ErrorCode::InvalidArgument));
        let Some(v1::answer::Answer::Failure(failure)) = answer.answer else { unreachable!() };
        assert!(failure.message.contains(message), "{}", failure.message);
        harness.feed(1, 2, 1, &[1], Ask::Nothing);
        assert_eq!(code(&only(harness.run_all())), ErrorCode::UnknownSession);
    }
    harness.feed(1, 1, 2, &[3], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2, 3]), "others go on");
}

#[test]
fn a_stream_is_handed_over_with_every_session_that_has_read_something() {
    let mut harness = Harness::new();
    for (stream, session) in [(1, 3), (1, 2), (1, 1), (2, 4)] {
        harness.open(stream, session);
    }
    harness.feed(1, 3, 1, &[1, 2], Ask::Nothing);
    harness.feed(1, 1, 1, &[5], Ask::Nothing);
    harness.feed(2, 4, 1, &[5], Ask::Nothing);
    harness.run_all();
    let handovers = harness.engine.hand_over(1);
    let standing =
        handovers.iter().map(|one| (one.session, one.snapshot.as_ref().map(|snapshot| snapshot.position)));
    assert_eq!(standing.collect::<Vec<_>>(), [(1, Some(1)), (3, Some(2))]);
    let snapshot = handovers.into_iter().last().and_then(|one| one.snapshot).unwrap();
    harness.apply(2, 5, Operation::Open(Origin::Snapshot(Box::new(snapshot))));
    harness.feed(2, 5, 1, &[], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2]));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_computed_and_ends_its_session() {
    let mut harness = Harness::new();
    let timeout = Duration::from_millis(100);
    harness.open(1, 1);
    harness.open(1, 2);
    let timed = Feed { timeout: Some(timeout), ..Feed::new(1, vec![1, 2, 3, 4, 5, 6], next()) };
    harness.apply(1, 1, Operation::Feed(timed));
    harness.apply(1, 1, Operation::Feed(Feed::new(2, vec![7], Ask::Nothing)));
    harness.feed(1, 2, 1, &[1, 2, 3, 4, 5, 6], next());
    harness.now += timeout;
    assert!(harness.run_batch().is_empty(), "in time, and the first chunk of both");
    harness.now += Duration::from_millis(1);
    let answers = harness.run_batch();
    let late: Vec<_> = answers.iter().filter(|answer| answer.session == 1).collect();
    assert_eq!([code(late[0]), code(late[1])], [ErrorCode::DeadlineExceeded, ErrorCode::UnknownSession]);
    assert_eq!(late.len(), 2);
    let sound = answers.iter().find(|answer| answer.session == 2).unwrap();
    assert_eq!(next_row(sound), logits_after(&[1, 2, 3, 4, 5, 6]), "the other session is not disturbed");
    let fed: usize = harness.forwards().iter().flatten().map(Vec::len).sum();
    assert_eq!(fed, 4 + 4 + 2);
}
