//! The failures that a worker answers with: each a code and one sentence. Knows nothing about when they happen.

use std::{fmt::Display, time::Duration};

use chorus_proto::v1::{self, ErrorCode, Failure};

/// The answer that carries a failure; step 0 where it belongs to Open.
pub(crate) fn answer(session: u64, step: u64, failure: Failure) -> v1::Answer {
    v1::Answer { session, step, answer: Some(v1::answer::Answer::Failure(failure)), snapshot: None }
}

pub(crate) fn invalid_argument(message: impl Into<String>) -> Failure {
    failure(ErrorCode::InvalidArgument, message)
}

pub(crate) fn unknown_session(session: u64, ttl: Duration) -> Failure {
    let seconds = ttl.as_secs();
    let message = format!(
        "session {session} is not open on this stream: it was never opened, was closed, failed, \
         or was idle for more than {seconds} seconds"
    );
    failure(ErrorCode::UnknownSession, message)
}

/// `repeatable`: the answer to the step `last` is still kept.
pub(crate) fn step_out_of_order(session: u64, step: u64, last: u64, repeatable: bool) -> Failure {
    let next = last.saturating_add(1);
    let message = if repeatable {
        format!("feed.step of session {session} is {step}, allowed are {last} (repeated) and {next}")
    } else {
        format!("feed.step of session {session} is {step}, allowed is {next}")
    };
    failure(ErrorCode::StepOutOfOrder, message)
}

pub(crate) fn answer_forgotten(session: u64, step: u64) -> Failure {
    let next = step.saturating_add(1);
    let message = format!(
        "feed.step of session {session} is {step} (repeated), but its answer is no longer kept; allowed is {next}"
    );
    failure(ErrorCode::StepOutOfOrder, message)
}

pub(crate) fn not_the_same_step(session: u64, step: u64) -> Failure {
    let next = step.saturating_add(1);
    invalid_argument(format!(
        "feed.step of session {session} is {step} (repeated), but with other tokens or another ask than that step had; \
         allowed are the same feed again and step {next}"
    ))
}

pub(crate) fn sessions_exhausted(max_sessions: usize) -> Failure {
    let message = format!("all {max_sessions} sessions of this worker are in use, try again later");
    failure(ErrorCode::ResourceExhausted, message)
}

pub(crate) fn discarded(session: u64) -> Failure {
    failure(ErrorCode::Cancelled, format!("session {session} was closed before this feed was computed"))
}

pub(crate) fn late(session: u64, timeout: Duration) -> Failure {
    let milliseconds = timeout.as_millis();
    let message =
        format!("feed.timeout_ms of session {session} was {milliseconds}, and it was not computed by then");
    failure(ErrorCode::DeadlineExceeded, message)
}

/// A snapshot that the session can't be opened with.
pub(crate) fn unusable_snapshot(session: u64, reason: &dyn Display) -> Failure {
    invalid_argument(format!("session {session} can't be opened: {reason}"))
}

/// Where a session that computes stands is not settled.
pub(crate) fn fork_of_busy(session: u64, other: u64) -> Failure {
    invalid_argument(format!(
        "open.fork_of of session {session} is {other}, which has a feed that is not answered; allowed is a session \
         whose last feed is answered"
    ))
}

pub(crate) fn fork_of_unknown(session: u64, other: u64) -> Failure {
    let message = format!("open.fork_of of session {session} is {other}, which is not open on this stream");
    failure(ErrorCode::UnknownSession, message)
}

pub(crate) fn not_finite(position: u64) -> Failure {
    let message = format!("the model's logits after {position} tokens of the session are not finite");
    failure(ErrorCode::NotFinite, message)
}

/// Nothing that the device computes is of use, for this reason.
pub(crate) fn unsound(reason: &str) -> Failure {
    failure(ErrorCode::Unavailable, format!("the worker's device is not sound: {reason}"))
}

pub(crate) fn internal(message: impl Into<String>) -> Failure {
    failure(ErrorCode::Internal, message)
}

fn failure(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure { code: code.into(), message: message.into() }
}
