//! Hostile frames against the whole worker below its streams: what comes is read, and applied to an engine, in any order and
//! with any time between. Every feed has one answer, nobody's session changes by what others send, and nothing stays behind.

mod states;
mod wire;

use std::collections::BTreeMap;

use chorus_fuzz::{Verdict, assert_one_line, fuzz, within};
use prost::Message as _;
use v1::{OperationFrame, answer::Answer as Kind};

use super::{
    scripted::{MODEL, Scripted, TTL, VOCABULARY},
    *,
};
use crate::{
    credit,
    operation::{self, Ask, OperationLimits, Rows},
    snapshot,
};
use wire::Event;

const LIMITS: OperationLimits =
    OperationLimits { vocabulary_size: VOCABULARY, state_bytes: 64, max_feed_tokens: 9, max_answer_rows: 5 };
/// Without the tokens over which the scripted model fails as a whole.
const LIMITS_OF_GOOD_TOKENS: OperationLimits = OperationLimits { vocabulary_size: 8, ..LIMITS };
const LONGEST_MESSAGE: usize = 400;

/// An engine with whoever is owed an answer.
struct Bench {
    engine: Engine<Scripted>,
    limits: OperationLimits,
    now: Instant,
    /// Feeds without an answer, by stream, session and step.
    owed: BTreeMap<(u64, u64, u64), usize>,
    /// The answers of each stream's sessions, in order.
    answers: BTreeMap<(u64, u64), Vec<v1::Answer>>,
    applied: usize,
}

impl Bench {
    fn new(predictor: Scripted, limits: OperationLimits, max_sessions: usize) -> Self {
        let batches =
            BatchLimits { chunk_tokens: 4, tokens: 12, logits: 20 * VOCABULARY, ..BatchLimits::default() };
        let engine = Engine::new(predictor, MODEL.to_owned(), max_sessions, TTL, batches);
        let (owed, answers) = (BTreeMap::new(), BTreeMap::new());
        Self { engine, limits, now: Instant::now(), owed, answers, applied: 0 }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Frame { stream, frame } => self.frame(*stream, &frame.0),
            Event::Batch => self.batch(),
            Event::Idle => self.idle(),
            Event::Later { milliseconds } => self.now += Duration::from_millis((*milliseconds).into()),
            Event::Expire => self.engine.expire(self.now),
            Event::End { stream } => self.end(*stream),
        }
        let open: usize =
            (0..wire::STREAMS).map(|stream| self.engine.sessions.of_stream(stream).count()).sum();
        assert_eq!(self.engine.open_sessions().load(Ordering::Relaxed) as usize, open);
    }

    /// As a stream's reader does: what is no frame ends the stream.
    fn frame(&mut self, stream: u64, bytes: &[u8]) {
        let decoded = within(64 * bytes.len() + 4096, || OperationFrame::decode(bytes));
        let Ok(frame) = decoded else {
            return self.end(stream);
        };
        for operation in frame.operations {
            let (session, limits) = (operation.session, self.limits);
            let room = 64 * operation.encoded_len() + 4096;
            let mut replies = Vec::new();
            match within(room, || operation::read(operation, &limits)) {
                Ok(operation) => {
                    check(&operation, &limits);
                    if let Operation::Feed(feed) = &operation {
                        *self.owed.entry((stream, session, feed.step)).or_default() += 1;
                    }
                    self.applied += 1;
                    let key = SessionKey { stream, session };
                    self.engine.apply(key, operation, Credit::default(), self.now, &mut replies);
                }
                Err(answer) => {
                    assert_eq!(answer.session, session);
                    assert!(matches!(&answer.answer, Some(Kind::Failure(failure))
                        if failure.code() == ErrorCode::InvalidArgument));
                    check_sentence(&answer);
                }
            }
            self.hear(replies);
        }
    }

    /// The next forward is under way before the one before it is collected, where that goes.
    fn batch(&mut self) {
        let mut replies = Vec::new();
        let before = self.engine.under_way();
        let begun = self.engine.begin(self.now, &mut replies);
        (0..before).for_each(|_| self.engine.collect(self.now, &mut replies));
        if begun == Begun::Blocked {
            assert!(before > 0);
            assert_ne!(self.engine.begin(self.now, &mut replies), Begun::Blocked);
        }
        self.hear(replies);
    }

    fn idle(&mut self) {
        let mut left = 10_000;
        while self.engine.has_work() || self.engine.under_way() > 0 {
            left -= 1;
            assert!(left > 0, "it never ends");
            self.batch();
        }
        assert!(self.owed.is_empty(), "without an answer: {:?}", self.owed);
        assert!(self.engine.batcher.is_idle(), "somebody is busy with nothing");
    }

    fn end(&mut self, stream: u64) {
        self.engine.end_stream(stream);
        self.owed.retain(|(of, _, _), _| *of != stream);
        assert_eq!(self.engine.sessions.of_stream(stream).count(), 0);
        assert!(self.engine.hand_over(stream).is_empty());
    }

    fn hear(&mut self, replies: Vec<Reply>) {
        for Reply { stream, answer, .. } in replies {
            check_sentence(&answer);
            let failed = matches!(answer.answer, Some(Kind::Failure(_)));
            if answer.step == 0 {
                assert!(failed, "only a failure to open has no step");
            } else {
                let key = (stream, answer.session, answer.step);
                let owed = self.owed.get_mut(&key).unwrap_or_else(|| panic!("{key:?} was not fed"));
                *owed -= 1;
                self.owed.retain(|_, owed| *owed > 0);
            }
            assert!(!(failed && answer.snapshot.is_some()));
            self.answers.entry((stream, answer.session)).or_default().push(answer);
        }
    }

    /// All streams end, and everything is as it was at the beginning.
    fn finish(mut self) {
        self.idle();
        let handed_over: Vec<_> =
            (0..wire::STREAMS).flat_map(|stream| self.engine.hand_over(stream)).collect();
        for handover in handed_over {
            let snapshot = handover.snapshot.unwrap();
            assert!(snapshot.position > 0 && snapshot::open(snapshot, MODEL).is_ok());
        }
        (0..wire::STREAMS).for_each(|stream| self.end(stream));
        assert_eq!(self.engine.open_sessions().load(Ordering::Relaxed), 0);
        assert!(!self.engine.has_work());
        self.engine.expire(self.now + TTL + TTL);
        assert_eq!(self.engine.next_due(), None);
    }
}

/// What is behind the wire is within its limits.
fn check(operation: &Operation, limits: &OperationLimits) {
    let units = credit::units(operation, limits);
    assert!(units > 0);
    let Operation::Feed(Feed { step, tokens, ask, .. }) = operation else {
        return;
    };
    let size = limits.vocabulary_size;
    assert!(*step > 0 && tokens.len() <= limits.max_feed_tokens);
    assert!(tokens.iter().all(|token| (*token as usize) < size));
    match ask {
        Ask::Nothing | Ask::Targets => {}
        Ask::Logits { rows, .. } => {
            assert!(*rows == Rows::Next || tokens.len() <= limits.max_answer_rows);
        }
        Ask::Top { k, log_threshold, .. } => {
            assert!(*k <= size && (*k > 0 || log_threshold.is_some()));
            assert!(log_threshold.is_none_or(|threshold| threshold.get().is_finite()));
        }
        Ask::Ids(ids) => {
            assert!(!ids.is_empty() && ids.is_sorted_by(|one, other| one < other));
            assert!(ids.iter().all(|id| (*id as usize) < size));
        }
        Ask::Draw { uniform } => assert!((0.0..1.0).contains(&uniform.get())),
    }
}

fn check_sentence(answer: &v1::Answer) {
    if let Some(Kind::Failure(failure)) = &answer.answer {
        assert_one_line(&failure.message, LONGEST_MESSAGE);
        assert_ne!(failure.code(), ErrorCode::Unspecified);
    }
}

#[test]
fn whatever_comes_every_feed_has_one_answer_and_nothing_stays_behind() {
    fuzz("worker: frames of operations", (wire::script(), 0..9_usize), |(script, halves)| {
        let mut bench = Bench::new(Scripted::in_halves(halves), LIMITS, 5);
        script.iter().for_each(|event| bench.take(event));
        let applied = bench.applied;
        bench.finish();
        Verdict::of(applied > 0)
    });
}

#[test]
fn nobody_s_answers_depend_on_what_other_streams_send() {
    fuzz("worker: streams beside each other", wire::script(), |script| {
        let script = without_forks(&script);
        let hear = |alone: bool| {
            // Room for whatever the others open, and time passes when nothing is under way: what is shared on purpose.
            let mut bench = Bench::new(Scripted::default(), LIMITS_OF_GOOD_TOKENS, 10_000);
            for event in &script {
                match event {
                    Event::Frame { stream, .. } | Event::End { stream } if alone && *stream != 0 => {}
                    Event::Later { .. } => {
                        bench.idle();
                        bench.take(event);
                    }
                    _ => bench.take(event),
                }
            }
            bench.idle();
            bench.answers.retain(|(stream, _), _| *stream == 0);
            bench.answers
        };
        let (beside, alone) = (hear(false), hear(true));
        assert_eq!(beside, alone);
        Verdict::of(!alone.is_empty())
    });
}

#[test]
fn answers_in_halves_are_those_of_whole_forwards() {
    fuzz("worker: forwards in halves", (wire::script(), 1..9_usize), |(script, halves)| {
        let script = without_forks(&script);
        let hear = |predictor: Scripted| {
            let mut bench = Bench::new(predictor, LIMITS, 10_000);
            for event in &script {
                // What is discarded, or too late, depends on how far the others are.
                if !matches!(event, Event::Batch) {
                    bench.idle();
                }
                bench.take(event);
            }
            bench.idle();
            bench.answers
        };
        let (whole, in_halves) = (hear(Scripted::default()), hear(Scripted::in_halves(halves)));
        assert_eq!(whole, in_halves);
        Verdict::of(!whole.is_empty())
    });
}

/// Whether a session can be forked depends on how far its feeds are, so on what others feed.
fn without_forks(script: &[Event]) -> Vec<Event> {
    let is_fork = |operation: &v1::Operation| {
        matches!(
            operation.operation,
            Some(v1::operation::Operation::Open(v1::Open { from: Some(v1::open::From::ForkOf(_)) }))
        )
    };
    let without = |event: &Event| match event {
        Event::Frame { stream, frame } => {
            let bytes = OperationFrame::decode(&*frame.0).map_or(frame.0.clone(), |mut frame| {
                frame.operations.retain(|operation| !is_fork(operation));
                frame.encode_to_vec()
            });
            Event::Frame { stream: *stream, frame: chorus_fuzz::Encoded(bytes) }
        }
        other => other.clone(),
    };
    script.iter().map(without).collect()
}
