//! What happens to sessions whose forward is under way: they are busy, they count, and whoever gives one up hears of it once.

use super::{
    scripted::{ERROR, Harness, NOT_FINITE, PANIC, Scripted, TTL, code, logits_after, next, next_row, only},
    *,
};
use v1::ErrorCode;

/// Forwards of up to four tokens go in halves.
const HALVES: usize = 4;

fn harness(max_sessions: usize) -> Harness {
    Harness::of(
        Scripted::in_halves(HALVES),
        BatchLimits { chunk_tokens: 4, ..BatchLimits::default() },
        max_sessions,
    )
}

/// A session whose first feed is under way.
fn under_way(max_sessions: usize) -> Harness {
    let mut harness = harness(max_sessions);
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[3], next());
    assert_eq!(harness.begin(), Begun::UnderWay { tokens: 1 });
    assert!(harness.replies.is_empty() && harness.engine.under_way() == 1 && !harness.engine.has_work());
    harness
}

#[test]
fn the_next_forward_is_under_way_before_the_first_is_answered() {
    let mut harness = under_way(8);
    harness.open(1, 2);
    harness.feed(1, 2, 1, &[4], next());
    assert_eq!(harness.begin(), Begun::UnderWay { tokens: 1 });
    let first = only(harness.collect());
    assert_eq!((first.session, next_row(&first)), (1, logits_after(&[3])));
    // The first goes on beside the second.
    harness.feed(1, 1, 2, &[5], next());
    assert_eq!(harness.begin(), Begun::UnderWay { tokens: 1 });
    let second = only(harness.collect());
    assert_eq!((second.session, next_row(&second)), (2, logits_after(&[4])));
    let third = only(harness.collect());
    assert_eq!((third.session, next_row(&third)), (1, logits_after(&[3, 5])));
}

#[test]
fn what_can_t_go_in_halves_waits_until_nothing_is_under_way() {
    let mut harness = under_way(8);
    for (session, tokens) in [(2, &[1, 2, 3][..]), (3, &[4, 5]), (4, &[6])] {
        harness.open(1, session);
        harness.feed(1, session, 1, tokens, next());
    }
    assert_eq!(harness.begin(), Begun::Blocked);
    assert!(harness.replies.is_empty() && harness.engine.has_work());
    assert_eq!(only(harness.collect()).session, 1);
    assert_eq!(harness.begin(), Begun::Computed { tokens: 6 });
    let answers: Vec<_> =
        harness.replies.drain(..).map(|reply| (reply.answer.session, next_row(&reply.answer))).collect();
    // Single tokens first, as without a forward in the way.
    assert_eq!(answers, [(4, logits_after(&[6])), (2, logits_after(&[1, 2, 3])), (3, logits_after(&[4, 5]))]);
    assert_eq!(harness.forwards(), [vec![vec![3]], vec![vec![6], vec![1, 2, 3], vec![4, 5]]]);
}

#[test]
fn a_session_under_way_is_busy() {
    let mut harness = under_way(8);
    harness.feed(1, 1, 1, &[3], next());
    harness.feed(1, 1, 2, &[5], next());
    harness.apply(1, 2, Operation::Open(Origin::Fork(1)));
    let refused = harness.replies.pop().unwrap().answer;
    assert_eq!((refused.session, code(&refused)), (2, ErrorCode::InvalidArgument));
    assert!(harness.replies.is_empty() && !harness.engine.has_work(), "all of it waits");
    assert_eq!(harness.engine.hand_over(1), []);
    harness.engine.expire(harness.now + 10 * TTL);
    let answers = harness.collect();
    assert_eq!(answers.iter().map(|answer| answer.step).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(answers[0], answers[1], "the repetition");
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[3, 5]));
    assert_eq!(harness.engine.hand_over(1).len(), 1);
}

#[test]
fn a_session_under_way_has_its_place() {
    let mut harness = under_way(1);
    assert_eq!(harness.engine.open_sessions().load(Ordering::Relaxed), 1);
    harness.open(1, 2);
    assert_eq!(code(&harness.replies.pop().unwrap().answer), ErrorCode::ResourceExhausted);
    assert_eq!(harness.collect().len(), 1);
}

#[test]
fn what_is_given_up_while_it_is_under_way_is_cancelled_once_and_in_order() {
    let mut harness = under_way(8);
    harness.feed(1, 1, 2, &[5], next());
    harness.apply(1, 1, Operation::Close { discard: true });
    let cancelled: Vec<_> =
        harness.replies.drain(..).map(|reply| (reply.answer.step, code(&reply.answer))).collect();
    assert_eq!(cancelled, [(1, ErrorCode::Cancelled), (2, ErrorCode::Cancelled)]);
    assert_eq!(harness.engine.open_sessions().load(Ordering::Relaxed), 0);
    // Another session of that number is not the one that is under way.
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[6], next());
    assert!(harness.collect().is_empty());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[6]));
}

#[test]
fn nobody_hears_of_a_stream_that_ended() {
    let mut harness = under_way(8);
    harness.feed(1, 1, 2, &[5], next());
    harness.engine.end_stream(1);
    assert!(harness.collect().is_empty() && !harness.engine.has_work());
    assert_eq!(harness.engine.open_sessions().load(Ordering::Relaxed), 0);
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[4], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[4]));
}

#[test]
fn a_device_that_is_out_of_order_answers_what_is_under_way_once() {
    let mut harness = under_way(8);
    harness.feed(1, 1, 2, &[5], next());
    harness.engine.found_unsound("stuck".into(), harness.now, &mut harness.replies);
    let failed: Vec<_> =
        harness.replies.drain(..).map(|reply| (reply.answer.step, code(&reply.answer))).collect();
    assert_eq!(failed, [(1, ErrorCode::Unavailable), (2, ErrorCode::Unavailable)]);
    assert!(harness.collect().is_empty());
}

#[test]
fn what_fails_in_the_second_half_ends_its_sessions_only() {
    for (token, expected) in
        [(NOT_FINITE, ErrorCode::NotFinite), (ERROR, ErrorCode::Internal), (PANIC, ErrorCode::Internal)]
    {
        let mut harness = under_way(8);
        harness.open(1, 2);
        harness.feed(1, 2, 1, &[token], next());
        harness.feed(1, 2, 2, &[1], next());
        assert_eq!(harness.begin(), Begun::UnderWay { tokens: 1 });
        assert_eq!(next_row(&only(harness.collect())), logits_after(&[3]));
        let answers: Vec<_> = harness.collect().iter().map(|answer| (answer.step, code(answer))).collect();
        assert_eq!(answers, [(1, expected), (2, ErrorCode::UnknownSession)]);
        harness.feed(1, 1, 2, &[5], next());
        assert_eq!(next_row(&only(harness.run_all())), logits_after(&[3, 5]));
    }
}

#[test]
fn a_feed_in_chunks_goes_on_from_half_to_half() {
    let mut harness = harness(8);
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2, 3, 4, 5, 6], next());
    assert_eq!(harness.begin(), Begun::UnderWay { tokens: 4 });
    assert_eq!(harness.begin(), Begun::Nothing, "its second chunk follows its first");
    assert!(harness.collect().is_empty());
    assert_eq!(harness.begin(), Begun::UnderWay { tokens: 2 });
    assert_eq!(next_row(&only(harness.collect())), logits_after(&[1, 2, 3, 4, 5, 6]));
}
