//! Everything that is counted in one window. Knows nothing about how it is shown.

use std::{collections::BTreeMap, time::Duration};

use super::{Answer, Failure, Latencies, Timeline, Window};
use crate::workload::Kind;

/// What became of the calls that should have started in the window. Each that was sent is answered, failed, or
/// unfinished when the run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCounts {
    /// Calls that were made.
    pub sent: u64,
    /// Calls that an open loop should have made, but as many as it may were in flight.
    pub not_sent: u64,
    /// Calls with a whole answer.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Of the answered ones: a member was missing in it.
    pub degraded: u64,
}

/// What came in the window, whenever its call began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    /// Whole answers.
    pub answers: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Tokens that were scored.
    pub scored_tokens: u64,
    /// Tokens of the prompts of generations that ended.
    pub prompt_tokens: u64,
}

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

/// What one thread, or all of them together, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    pub(super) window: Window,
    /// Calls that should have started in the window.
    pub calls: CallCounts,
    /// What came in it.
    pub volume: Volume,
    /// By the number of the gRPC code.
    pub errors: BTreeMap<i32, Errors>,
    /// From the intended start of a generation to its first token.
    pub first_token: Latencies,
    /// Between two tokens of one answer, every gap by itself.
    pub inter_token: Latencies,
    /// From the intended start of a generation to its last message.
    pub generate: Latencies,
    /// From the intended start of a scoring to its answer.
    pub score: Latencies,
    /// From the intended start of a call to the moment at which it was made: what this program itself was late by.
    pub sent_late: Latencies,
    /// Throughput over time.
    pub timeline: Timeline,
}

impl Volume {
    /// Tokens that were generated or scored.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.generated_tokens + self.scored_tokens
    }
}

impl CallCounts {
    /// Calls without an end.
    #[must_use]
    pub fn unfinished(self) -> u64 {
        self.sent.saturating_sub(self.answered + self.failed)
    }
}

impl Measurements {
    /// Nothing yet.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self {
            window,
            calls: CallCounts::default(),
            volume: Volume::default(),
            errors: BTreeMap::new(),
            first_token: Latencies::new(),
            inter_token: Latencies::new(),
            generate: Latencies::new(),
            score: Latencies::new(),
            sent_late: Latencies::new(),
            timeline: Timeline::new(window.length()),
        }
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Takes in what another thread measured in the same window.
    pub fn merge(&mut self, other: &Self) {
        let (calls, others) = (&mut self.calls, other.calls);
        calls.sent += others.sent;
        calls.not_sent += others.not_sent;
        calls.answered += others.answered;
        calls.failed += others.failed;
        calls.degraded += others.degraded;
        let (volume, others) = (&mut self.volume, other.volume);
        volume.answers += others.answers;
        volume.generated_tokens += others.generated_tokens;
        volume.scored_tokens += others.scored_tokens;
        volume.prompt_tokens += others.prompt_tokens;
        for (code, errors) in &other.errors {
            let known = self.errors.entry(*code);
            let known = known.or_insert_with(|| Errors { count: 0, example: errors.example.clone() });
            known.count += errors.count;
        }
        self.first_token.merge(&other.first_token);
        self.inter_token.merge(&other.inter_token);
        self.generate.merge(&other.generate);
        self.score.merge(&other.score);
        self.sent_late.merge(&other.sent_late);
        self.timeline.merge(&other.timeline);
    }

    /// A call of an open loop that was not made.
    pub fn not_sent(&mut self, intended: Duration) {
        if self.window.contains(intended) {
            self.calls.not_sent += 1;
        }
    }

    pub(super) fn sent(&mut self, late: Duration) {
        self.calls.sent += 1;
        self.sent_late.record(late);
    }

    pub(super) fn token(&mut self, now: Duration) {
        if self.window.contains(now) {
            self.volume.generated_tokens += 1;
            self.timeline.at(now - self.window.from).tokens += 1;
        }
    }

    pub(super) fn ended(&mut self, now: Duration, result: &Result<Answer, Failure>) {
        if !self.window.contains(now) {
            return;
        }
        let slice = self.timeline.at(now - self.window.from);
        match result {
            Ok(answer) => {
                slice.answers += 1;
                slice.tokens += u64::from(answer.scored_tokens) + u64::from(answer.generated_tokens);
                self.volume.answers += 1;
                self.volume.generated_tokens += u64::from(answer.generated_tokens);
                self.volume.scored_tokens += u64::from(answer.scored_tokens);
                self.volume.prompt_tokens += u64::from(answer.prompt_tokens);
            }
            Err(_) => slice.errors += 1,
        }
    }

    pub(super) fn answered(&mut self, kind: Kind, latency: Duration, answer: Answer) {
        self.calls.answered += 1;
        self.calls.degraded += u64::from(answer.degraded);
        match kind {
            Kind::Generate => self.generate.record(latency),
            Kind::Score => self.score.record(latency),
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.calls.failed += 1;
        let errors = self.errors.entry(failure.code.into());
        errors.or_insert(Errors { count: 0, example: failure.message }).count += 1;
    }
}
