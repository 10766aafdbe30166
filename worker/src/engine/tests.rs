//! The engine with a scripted predictor: what is computed, how often, in which batches, and what is answered.

use super::{
    scripted::{
        ERROR, Harness, NOT_FINITE, PANIC, TTL, code, each, logits_after, next, next_row, only, rows,
    },
    *,
};
use crate::operation::Ask;
use chorus_simd::norm;
use v1::{ErrorCode, answer::Answer as Kind};

#[test]
fn a_repeated_step_is_answered_from_memory_and_computed_once() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[3, 4], next());
    let first = only(harness.run_all());
    assert_eq!(next_row(&first), logits_after(&[3, 4]));
    harness.feed(1, 1, 1, &[3, 4], next());
    assert_eq!(only(harness.run_all()), first);
    assert_eq!(harness.forwards().len(), 1);
    harness.feed(1, 1, 2, &[5], next());
    assert_eq!(
        next_row(&only(harness.run_all())),
        logits_after(&[3, 4, 5]),
        "the repetition did not advance"
    );
}

#[test]
fn a_step_that_is_repeated_while_it_is_computed_waits_for_its_answer() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2, 3, 4, 5], next());
    harness.run_batch();
    harness.feed(1, 1, 1, &[1, 2, 3, 4, 5], next());
    let answers = harness.run_all();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(harness.forwards().len(), 2, "two chunks, computed once");
}

#[test]
fn a_step_out_of_order_leaves_the_session_where_it_was() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 2, &[1], Ask::Nothing);
    assert_eq!(code(&only(harness.run_all())), ErrorCode::StepOutOfOrder);
    harness.feed(1, 1, 1, &[1], next());
    assert_eq!(next_row(&only(harness.run_all())), logits_after(&[1]));
    harness.feed(1, 1, 3, &[2], next());
    assert_eq!(code(&only(harness.run_all())), ErrorCode::StepOutOfOrder);
}

#[test]
fn operations_on_one_session_run_in_their_order_and_share_one_frame() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2], Ask::Nothing);
    harness.feed(1, 1, 2, &[3], next());
    harness.apply(1, 1, Operation::Close { discard: false });
    harness.feed(1, 1, 3, &[4], next());
    let answers = harness.run_all();
    assert_eq!(answers.iter().map(|answer| answer.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(answers[0].answer, Some(Kind::Advanced(v1::Advanced {})));
    assert_eq!(next_row(&answers[1]), logits_after(&[1, 2, 3]));
    assert_eq!(code(&answers[2]), ErrorCode::UnknownSession);
}

#[test]
fn opening_again_replaces_the_session() {
    let mut harness = Harness::with(BatchLimits::default(), 1);
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1, 2], Ask::Nothing);
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[5], next());
    let answers = harness.run_all();
    assert_eq!(answers.len(), 2, "a full table has room for a replacement: {answers:?}");
    assert_eq!(next_row(&answers[1]), logits_after(&[5]));
}

#[test]
fn the_same_number_on_two_streams_is_two_sessions() {
    let mut harness = Harness::new();
    for stream in [1, 2] {
        harness.open(stream, 7);
        harness.feed(stream, 7, 1, &[stream as u32], next());
    }
    harness.engine.run_batch(harness.now, &mut harness.replies);
    assert_eq!(harness.forwards(), [[[1], [2]]], "both in one forward");
    for reply in std::mem::take(&mut harness.replies) {
        assert_eq!(next_row(&reply.answer), logits_after(&[reply.stream as u32]));
    }
    harness.engine.end_stream(1);
    harness.feed(1, 7, 2, &[3], next());
    harness.feed(2, 7, 2, &[3], next());
    let answers = harness.run_all();
    assert_eq!(code(&answers[0]), ErrorCode::UnknownSession);
    assert_eq!(next_row(&answers[1]), logits_after(&[2, 3]));
}

#[test]
fn an_idle_session_expires_and_makes_room() {
    let mut harness = Harness::with(BatchLimits::default(), 1);
    harness.open(1, 1);
    harness.open(1, 2);
    let answer = only(harness.run_all());
    assert_eq!((answer.session, answer.step, code(&answer)), (2, 0, ErrorCode::ResourceExhausted));
    harness.now += TTL + Duration::from_millis(1);
    harness.open(1, 2);
    harness.feed(1, 2, 1, &[1], next());
    harness.feed(1, 1, 1, &[1], next());
    let answers = harness.run_all();
    assert_eq!((answers[0].session, code(&answers[0])), (1, ErrorCode::UnknownSession));
    assert_eq!(next_row(&answers[1]), logits_after(&[1]));
}

#[test]
fn without_operations_sessions_expire_when_the_engine_said() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[1], next());
    harness.now += TTL / 2;
    harness.run_all();
    // The feed's answer renewed the session: the first look is early and says when to come again.
    harness.engine.expire(harness.engine.next_due().unwrap());
    assert_eq!(harness.engine.sessions.len(), 1);
    harness.engine.expire(harness.engine.next_due().unwrap());
    assert_eq!(harness.engine.sessions.len(), 0);
    assert_eq!(harness.engine.next_due(), None);
}

#[test]
fn a_long_feed_goes_in_chunks_between_which_others_get_their_tokens() {
    let mut harness = Harness::new();
    let long: Vec<u32> = (0..10).map(|index| index % 5).collect();
    harness.open(1, 1);
    harness.open(1, 2);
    harness.feed(1, 1, 1, &long, next());
    for step in 1..=3 {
        harness.feed(1, 2, step, &[step as u32], next());
    }
    let first = only(harness.run_batch());
    let second = only(harness.run_batch());
    assert_eq!((first.session, first.step, second.session, second.step), (2, 1, 2, 2));
    let third = harness.run_batch();
    assert_eq!(third.iter().map(|answer| answer.session).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(next_row(&third[1]), logits_after(&long));
    let fed: Vec<Vec<usize>> =
        harness.forwards().iter().map(|rows| rows.iter().map(Vec::len).collect()).collect();
    assert_eq!(fed, [[1, 4], [1, 4], [1, 2]]);
}

#[test]
fn a_forward_that_is_full_serves_the_others_next() {
    let mut harness =
        Harness::with(BatchLimits { chunk_tokens: 2, tokens: 4, logits: 1000, ..BatchLimits::default() }, 8);
    for session in 1..=3 {
        harness.open(1, session);
        harness.feed(1, session, 1, &[1, 2, 3, 4], Ask::Nothing);
    }
    let mut answered = Vec::new();
    while harness.engine.has_work() {
        answered.push(harness.run_batch().iter().map(|answer| answer.session).collect::<Vec<_>>());
    }
    assert_eq!(answered, [vec![], vec![1], vec![2, 3]], "nobody gets a second chunk before all had a first");
}

#[test]
fn rows_for_each_token_are_the_distributions_that_the_tokens_are_drawn_from() {
    let mut harness = Harness::new();
    let tokens = [3, 1, 4, 1, 5, 2];
    for (session, ask) in [(1, each()), (2, Ask::Targets)] {
        harness.open(1, session);
        harness.feed(1, session, 1, &tokens, ask);
    }
    let answers = harness.run_all();
    let expected: Vec<Vec<f32>> = (0..tokens.len()).map(|place| logits_after(&tokens[..place])).collect();
    assert_eq!(rows(&answers[0], tokens.len()), expected.concat());
    let Some(Kind::Logits(logits)) = &answers[0].answer else { unreachable!("rows() has read it") };
    let norms: Vec<(f32, f64)> = logits.norms.as_ref().unwrap().iter().collect();
    let Some(Kind::Targets(targets)) = &answers[1].answer else { panic!("targets were asked for") };
    for (place, row) in expected.iter().enumerate() {
        assert_eq!(norms[place], (norm(row).largest, norm(row).log_sum));
        assert_eq!(targets.log_probs[place], norm(row).log_prob(row[tokens[place] as usize]));
    }
    assert_eq!(targets.log_probs.len(), tokens.len());
}

#[test]
fn an_empty_feed_asks_about_the_session_as_it_stands() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.feed(1, 1, 1, &[], next());
    harness.feed(1, 1, 2, &[2], Ask::Nothing);
    harness.feed(1, 1, 3, &[], next());
    harness.feed(1, 1, 4, &[], each());
    harness.feed(1, 1, 5, &[], Ask::Targets);
    harness.feed(1, 1, 6, &[], Ask::Nothing);
    let answers = harness.run_all();
    assert_eq!(next_row(&answers[0]), logits_after(&[]));
    assert_eq!(next_row(&answers[2]), logits_after(&[2]));
    assert_eq!(rows(&answers[3], 0), [0.0; 0]);
    assert_eq!(answers[4].answer, Some(Kind::Targets(v1::Targets { log_probs: vec![] })));
    assert_eq!(answers[5].answer, Some(Kind::Advanced(v1::Advanced {})));
    assert_eq!(harness.forwards().len(), 3);
}

#[test]
fn logits_that_are_not_finite_fail_their_session_and_no_other() {
    let mut harness = Harness::new();
    for (session, token) in [(1, NOT_FINITE), (2, 2)] {
        harness.open(1, session);
        harness.feed(1, session, 1, &[token], next());
        harness.feed(1, session, 2, &[1], next());
    }
    let answers = harness.run_all();
    let of = |session| answers.iter().filter(move |answer| answer.session == session).collect::<Vec<_>>();
    let failed: Vec<_> = of(1).into_iter().map(code).collect();
    assert_eq!(failed, [ErrorCode::NotFinite, ErrorCode::UnknownSession], "the failure ends the session");
    assert_eq!(next_row(of(2)[1]), logits_after(&[2, 1]));
}

#[test]
fn an_error_or_a_panic_of_the_model_is_answered_and_survived() {
    for token in [ERROR, PANIC] {
        let mut harness = Harness::new();
        for (session, token) in [(1, token), (2, 2)] {
            harness.open(1, session);
            harness.feed(1, session, 1, &[token], next());
        }
        let codes: Vec<_> = harness.run_all().iter().map(code).collect();
        assert_eq!(codes, [ErrorCode::Internal, ErrorCode::Internal], "one forward, one fate");
        harness.open(1, 2);
        harness.feed(1, 2, 1, &[2], next());
        assert_eq!(next_row(&only(harness.run_all())), logits_after(&[2]));
    }
}

#[test]
fn a_discarding_close_answers_everything_that_is_under_way_as_cancelled() {
    let mut harness = Harness::new();
    harness.open(1, 1);
    harness.open(1, 2);
    harness.feed(1, 1, 1, &[1; 50], Ask::Nothing);
    harness.feed(1, 1, 2, &[1], Ask::Nothing);
    harness.feed(1, 2, 1, &[1; 5], next());
    harness.run_batch();
    harness.apply(1, 1, Operation::Close { discard: true });
    let answers = harness.run_all();
    let seen: Vec<_> = answers.iter().map(|answer| (answer.session, answer.step)).collect();
    assert_eq!(seen, [(1, 1), (1, 2), (2, 1)]);
    assert_eq!((code(&answers[0]), code(&answers[1])), (ErrorCode::Cancelled, ErrorCode::Cancelled));
    assert_eq!(harness.forwards().len(), 2, "the rest of the long feed is not computed");
    harness.feed(1, 1, 2, &[1], Ask::Nothing);
    assert_eq!(code(&only(harness.run_all())), ErrorCode::UnknownSession);
}

#[test]
fn a_stream_that_ends_takes_its_queue_along() {
    let mut harness = Harness::new();
    for stream in [1, 2] {
        harness.open(stream, 1);
        harness.feed(stream, 1, 1, &[1; 50], Ask::Nothing);
    }
    harness.run_batch();
    harness.engine.end_stream(1);
    assert_eq!(harness.run_all().len(), 1);
    assert!(harness.forwards()[1..].iter().all(|rows| rows.len() == 1));
}

#[test]
fn next_tokens_are_helped_with_where_nothing_waits_behind_them() {
    let mut harness = Harness::with(BatchLimits { tokens: 4, ..BatchLimits::default() }, 8);
    for session in 1..=6 {
        harness.open(1, session);
        harness.feed(1, session, 1, &[1], next());
    }
    let mut helped = Vec::new();
    while harness.engine.has_work() {
        harness.run_batch();
        helped.push(harness.engine.predictor.helped);
    }
    assert_eq!(helped, [0, 1], "four of six, and the two that waited");
    // A prompt beside a next token, and a longer one alone.
    harness.feed(1, 1, 2, &[1, 2], next());
    harness.feed(1, 2, 2, &[1], next());
    harness.run_all();
    assert_eq!(harness.engine.predictor.helped, 2);
    harness.feed(1, 1, 3, &[1, 2, 3], next());
    harness.run_all();
    assert_eq!(harness.engine.predictor.helped, 2);
}
