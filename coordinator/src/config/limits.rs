//! What requests and members are held to. Knows nothing about who enforces it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest requests that are served, how many at a time, and how long members may take. Every
/// limit but `max_waiting` is at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Tokens of a prompt, prefix or scored text.
    pub max_input_tokens: u32,
    /// Bytes of a prompt, prefix or scored text, looked at before it is tokenized.
    pub max_input_bytes: u32,
    /// Tokens that one request may generate.
    pub max_generated_tokens: u32,
    /// Generations, scorings and predictions in progress at a time.
    pub max_sessions: u32,
    /// Tokens of all of these together: of their inputs, and those that they may generate. A request that has more by itself
    /// runs when it is alone.
    pub max_tokens_in_progress: u32,
    /// Requests of all callers that wait for a place; 0 refuses whatever can't run at once.
    pub max_waiting: u32,
    /// Milliseconds that a request may wait for a place.
    pub max_wait_ms: u32,
    /// Candidates of one prediction.
    pub max_top_n: u32,
    /// Sequences that one beam search keeps.
    pub max_beam_size: u32,
    /// Candidates of one ranking, and labels of one classification.
    pub max_candidates: u32,
    /// Sessions that all requests together have beside the one that each has: those of searches and rankings.
    pub max_branches: u32,
    /// Milliseconds that a member has for its answer to one step.
    pub step_timeout_ms: u32,
    /// Milliseconds that connecting to a member may take.
    pub connect_timeout_ms: u32,
    /// Milliseconds that a caller may pause while it sends a request.
    pub read_timeout_ms: u32,
}

/// A limit under which nothing works.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{key}: {value} is not allowed; allowed: {least} to {most}")]
pub struct LimitsError {
    /// Which limit.
    pub key: &'static str,
    /// What was given.
    pub value: u32,
    /// The smallest value.
    pub least: u32,
    /// The largest value.
    pub most: u32,
}

/// A gRPC message may hold at most this much text beside its other fields.
const MOST_INPUT_BYTES: u32 = 64 * 1024 * 1024;

/// Sequences of one search; more are no search but an enumeration.
const MOST_BEAMS: u32 = 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_input_tokens: 200_000,
            max_input_bytes: 1024 * 1024,
            max_generated_tokens: 4096,
            max_sessions: 128,
            max_tokens_in_progress: 1 << 20,
            max_waiting: 512,
            max_wait_ms: 5000,
            max_top_n: 1000,
            max_beam_size: 32,
            max_candidates: 10_000,
            max_branches: 512,
            step_timeout_ms: 5000,
            connect_timeout_ms: 2000,
            read_timeout_ms: 30_000,
        }
    }
}

impl Limits {
    /// How long a member has for its answer to one step.
    pub fn step_timeout(&self) -> Duration {
        Duration::from_millis(self.step_timeout_ms.into())
    }

    /// How long connecting to a member may take.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// How long a caller may pause while it sends a request.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms.into())
    }

    pub(super) fn check(&self) -> Result<(), LimitsError> {
        let all = [
            ("max_input_tokens", self.max_input_tokens, 1..=u32::MAX),
            ("max_input_bytes", self.max_input_bytes, 1..=MOST_INPUT_BYTES),
            ("max_generated_tokens", self.max_generated_tokens, 1..=u32::MAX),
            ("max_sessions", self.max_sessions, 1..=u32::MAX),
            ("max_tokens_in_progress", self.max_tokens_in_progress, 1..=u32::MAX),
            ("max_waiting", self.max_waiting, 0..=u32::MAX),
            ("max_wait_ms", self.max_wait_ms, 1..=u32::MAX),
            ("max_top_n", self.max_top_n, 1..=u32::MAX),
            // Each of them is a session at every member.
            ("max_beam_size", self.max_beam_size, 1..=MOST_BEAMS.min(self.max_branches.saturating_add(1))),
            ("max_candidates", self.max_candidates, 1..=u32::MAX),
            ("max_branches", self.max_branches, 1..=1 << 20),
            ("step_timeout_ms", self.step_timeout_ms, 1..=u32::MAX),
            ("connect_timeout_ms", self.connect_timeout_ms, 1..=u32::MAX),
            ("read_timeout_ms", self.read_timeout_ms, 1..=u32::MAX),
        ];
        let wrong = all.into_iter().find(|(_, value, allowed)| !allowed.contains(value));
        match wrong {
            Some((key, value, allowed)) => {
                Err(LimitsError { key, value, least: *allowed.start(), most: *allowed.end() })
            }
            None => Ok(()),
        }
    }
}
