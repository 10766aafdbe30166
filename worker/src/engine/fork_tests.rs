//! The engine with a scripted predictor: sessions that begin where others stand.

use super::{
    scripted::{Harness, code, logits_after, next, next_row, only},
    *,
};
use crate::operation::Ask;
use v1::ErrorCode;

fn fork(of: u64) -> Operation {
    Operation::Open(Origin::Fork(of))
}

#[test]
fn a_fork_goes_on_by_itself_from_where_the_other_stands() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2, 3], Ask::Nothing);
    harness.run_all();
    harness.apply(1, 2, fork(1));
    harness.feed(1, 2, 1, &[4], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2, 3, 4]));
    harness.feed(1, 1, 2, &[5], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2, 3, 5]), "the other did not move");
    harness.feed(1, 2, 2, &[6], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2, 3, 4, 6]));
}

#[test]
fn a_fork_outlives_a_session_that_is_closed_behind_it() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[6], Ask::Nothing);
    harness.run_all();
    harness.apply(1, 2, fork(1));
    harness.apply(1, 1, Operation::Close { discard: true });
    harness.feed(1, 2, 1, &[], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[6]));
}

/// Whoever of a forward is answered first: the others are done as well.
#[test]
fn a_fork_of_who_was_in_the_same_forward_is_of_its_end() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut harness = Harness::new();
        for session in [first, second] {
            harness.open(1, session);
            harness.feed(1, session, 1, &[session as u32], Ask::Nothing);
        }
        harness.apply(1, 1, fork(2));
        harness.run_all();
        harness.feed(1, 1, 1, &[5], next());
        assert_eq!(next_row(&only(harness.run_all())), logits_after(&[2, 5]));
    }
}

#[test]
fn what_is_not_there_or_computes_can_t_be_forked() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2, 3, 4, 5, 6], next());
    harness.run_batch();
    for (stream, of, expected) in [
        (1, 9, ErrorCode::UnknownSession),
        (2, 1, ErrorCode::UnknownSession),
        (1, 1, ErrorCode::InvalidArgument),
    ] {
        harness.apply(stream, 5, fork(of));
        let refused = harness.replies.drain(..).map(|reply| reply.answer);
        let refused = only(refused.collect());
        assert_eq!((refused.session, refused.step, code(&refused)), (5, 0, expected));
        harness.feed(stream, 5, 1, &[1], next());
        let refused = harness.replies.drain(..).map(|reply| reply.answer);
        assert_eq!(code(&only(refused.collect())), ErrorCode::UnknownSession, "nothing was opened");
    }
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1, 2, 3, 4, 5, 6]), "the other goes on");
}
