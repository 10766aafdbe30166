//! A scripted predictor and a harness around the engine, for the engine's tests.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    operation::{Ask, Rows},
    predictor::{Prediction, PredictorError, Restored, Row},
    scripted_row::{KeptRow, read_tokens},
};
use bytes::Bytes;
use chorus_proto::logits_to_values;
use chorus_simd::{Room, norm};
use v1::{ErrorCode, RowFormat, answer::Answer as Kind};

pub(super) const MODEL: &str = "scripted";
pub(super) const VOCABULARY: usize = 10;
pub(super) const NOT_FINITE: u32 = 7;
pub(super) const ERROR: u32 = 8;
pub(super) const PANIC: u32 = 9;
pub(super) const TTL: Duration = Duration::from_secs(10);

/// Its state is the tokens themselves; its logits are a function of them. Three tokens make it fail.
#[derive(Default)]
pub(super) struct Scripted {
    /// The tokens of every row of every forward.
    forwards: Vec<Vec<Vec<u32>>>,
    /// How many of them were to be helped with.
    pub(super) helped: usize,
    /// Tokens of a forward that is computed in halves, at most; two of them may be under way.
    halves: usize,
    submitted: VecDeque<Vec<KeptRow<Vec<u32>>>>,
}

impl Scripted {
    /// Computes forwards of up to so many tokens in halves.
    pub(super) fn in_halves(tokens: usize) -> Self {
        Self { halves: tokens, ..Self::default() }
    }

    fn note(&mut self, rows: &[Row<'_, Vec<u32>>]) {
        self.forwards.push(rows.iter().map(|row| row.tokens.to_vec()).collect());
    }
}

impl Predictor for Scripted {
    type State = Vec<u32>;

    fn vocabulary_size(&self) -> usize {
        VOCABULARY
    }

    fn fresh_state(&mut self) -> Result<Vec<u32>, PredictorError> {
        Ok(vec![])
    }

    fn snapshot(&self, state: &Vec<u32>) -> Result<Bytes, PredictorError> {
        Ok(state.iter().flat_map(|token| token.to_le_bytes()).collect())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<Restored<Vec<u32>>, PredictorError> {
        Ok(match snapshot.as_chunks() {
            (tokens, []) => Ok(tokens.iter().map(|token| u32::from_le_bytes(*token)).collect()),
            _ => Err("no whole number of tokens".into()),
        })
    }

    fn forward(
        &mut self,
        rows: &mut [Row<'_, Vec<u32>>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        assert!(self.submitted.is_empty(), "what is under way is collected before");
        self.note(rows);
        rows.iter_mut().enumerate().try_for_each(|(index, row)| forward_one(index, row, receive))
    }

    fn forward_with_help(
        &mut self,
        rows: &mut [Row<'_, Vec<u32>>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        self.helped += 1;
        self.forward(rows, receive)
    }

    fn submit(&mut self, rows: &mut [Row<'_, Vec<u32>>]) -> Result<bool, PredictorError> {
        let tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        if tokens > self.halves || self.submitted.len() == 2 || self.halves == 0 {
            return Ok(false);
        }
        self.note(rows);
        self.submitted.push_back(rows.iter().map(KeptRow::of).collect());
        rows.iter_mut().for_each(|row| row.state.extend(row.tokens));
        Ok(true)
    }

    fn collect(&mut self, receive: &mut dyn FnMut(Prediction<'_>)) -> Result<(), PredictorError> {
        let mut rows = self.submitted.pop_front().expect("it was submitted");
        let mut rows = rows.iter_mut().map(KeptRow::row).enumerate();
        rows.try_for_each(|(index, mut row)| forward_one(index, &mut row, receive))
    }
}

fn forward_one(
    index: usize,
    row: &mut Row<'_, Vec<u32>>,
    receive: &mut dyn FnMut(Prediction<'_>),
) -> Result<(), PredictorError> {
    assert!(!row.tokens.contains(&PANIC), "scripted panic");
    if row.tokens.contains(&ERROR) {
        return Err("scripted error".into());
    }
    let asked = (row.want, row.tokens, row.reduction);
    read_tokens(row, |offset, tokens| {
        let logits = logits_after(tokens);
        let logits = (&logits[..], norm(&logits));
        receive(Prediction::reduced((index, offset), logits, asked, &mut Room::default()));
    });
    Ok(())
}

pub(super) fn logits_after(tokens: &[u32]) -> Vec<f32> {
    if tokens.contains(&NOT_FINITE) {
        return vec![f32::NAN; VOCABULARY];
    }
    let mix = |seed: u32, &token: &u32| (seed ^ token).wrapping_mul(2_654_435_761).rotate_left(7);
    let seed = tokens.iter().fold(1, mix);
    (0..VOCABULARY as u32).map(|id| (mix(seed, &id) % 1000) as f32 / 100.0).collect()
}

pub(super) struct Harness {
    pub(super) engine: Engine<Scripted>,
    pub(super) now: Instant,
    pub(super) replies: Vec<Reply>,
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::with(
            BatchLimits { chunk_tokens: 4, tokens: 100, logits: 100 * VOCABULARY, ..BatchLimits::default() },
            8,
        )
    }

    pub(super) fn with(limits: BatchLimits, max_sessions: usize) -> Self {
        Self::of(Scripted::default(), limits, max_sessions)
    }

    pub(super) fn of(predictor: Scripted, limits: BatchLimits, max_sessions: usize) -> Self {
        let engine = Engine::new(predictor, MODEL.to_owned(), max_sessions, TTL, limits);
        Self { engine, now: Instant::now(), replies: vec![] }
    }

    pub(super) fn apply(&mut self, stream: u64, session: u64, operation: Operation) {
        let key = SessionKey { stream, session };
        self.engine.apply(key, operation, Credit::default(), self.now, &mut self.replies);
    }

    pub(super) fn open(&mut self, stream: u64, session: u64) {
        self.apply(stream, session, Operation::Open(Origin::Start));
    }

    pub(super) fn feed(&mut self, stream: u64, session: u64, step: u64, tokens: &[u32], ask: Ask) {
        self.apply(stream, session, Operation::Feed(Feed::new(step, tokens.to_vec(), ask)));
    }

    /// One forward's replies, or those that needed none.
    pub(super) fn run_batch(&mut self) -> Vec<v1::Answer> {
        self.engine.run_batch(self.now, &mut self.replies);
        self.replies.drain(..).map(|reply| reply.answer).collect()
    }

    /// The first half of one.
    pub(super) fn begin(&mut self) -> Begun {
        self.engine.begin(self.now, &mut self.replies)
    }

    /// The second half of the oldest; its replies.
    pub(super) fn collect(&mut self) -> Vec<v1::Answer> {
        self.engine.collect(self.now, &mut self.replies);
        self.replies.drain(..).map(|reply| reply.answer).collect()
    }

    pub(super) fn run_all(&mut self) -> Vec<v1::Answer> {
        let mut answers: Vec<_> = self.replies.drain(..).map(|reply| reply.answer).collect();
        while self.engine.has_work() {
            answers.extend(self.run_batch());
        }
        answers
    }

    pub(super) fn forwards(&self) -> &[Vec<Vec<u32>>] {
        &self.engine.predictor.forwards
    }
}

pub(super) fn next() -> Ask {
    Ask::Logits { rows: Rows::Next, format: RowFormat::F32 }
}

pub(super) fn each() -> Ask {
    Ask::Logits { rows: Rows::Each, format: RowFormat::F32 }
}

pub(super) fn next_row(answer: &v1::Answer) -> Vec<f32> {
    rows(answer, 1)
}

pub(super) fn rows(answer: &v1::Answer, count: usize) -> Vec<f32> {
    match &answer.answer {
        Some(Kind::Logits(logits)) => logits_to_values(logits, RowFormat::F32, count, VOCABULARY).unwrap(),
        other => panic!("logits were asked for, the answer is {other:?}"),
    }
}

pub(super) fn code(answer: &v1::Answer) -> ErrorCode {
    match &answer.answer {
        Some(Kind::Failure(failure)) => failure.code(),
        other => panic!("a failure was expected, the answer is {other:?}"),
    }
}

pub(super) fn only(answers: Vec<v1::Answer>) -> v1::Answer {
    let [answer] = <[_; 1]>::try_from(answers).unwrap();
    answer
}
