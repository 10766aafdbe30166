//! [`Refusal`]: why a request was turned away, and what its caller hears.
//!
//! Knows nothing about who decides it.

use std::time::Duration;

use chorus_proto::v1::ErrorCode;
use tonic::Status;

use super::pace;
use crate::config::Limits;
use crate::failure::{Failure, status};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The line is full.
    Full,
    /// It was in the line, and had to leave for a request of a caller with fewer there.
    Displaced,
    /// It has waited for as long as a request may.
    WaitedTooLong,
    /// The server stops.
    Draining,
}

impl Refusal {
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Displaced, Self::WaitedTooLong, Self::Draining];

    /// As a label of a metric.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "line_full",
            Self::Displaced => "displaced",
            Self::WaitedTooLong => "waited_too_long",
            Self::Draining => "draining",
        }
    }

    /// What the caller hears, and that it may come again after a while.
    pub(super) fn status(self, limits: &Limits, come_again_after: Duration) -> Status {
        let Limits { max_sessions, max_waiting, max_wait_ms, max_tokens_in_progress, .. } = limits;
        let message = match self {
            Self::Full => format!(
                "the server is busy: all {max_sessions} places (limits.max_sessions) or {max_tokens_in_progress} tokens \
                 (limits.max_tokens_in_progress) are taken and {max_waiting} requests wait (limits.max_waiting)"
            ),
            Self::Displaced => format!(
                "the server is busy: {max_waiting} requests wait (limits.max_waiting), most of them of this caller, and \
                 another caller's took the place of this one"
            ),
            Self::WaitedTooLong => format!(
                "the server is busy: the request has waited for {max_wait_ms} ms (limits.max_wait_ms) and no place has become \
                 free"
            ),
            Self::Draining => return shutting_down(),
        };
        exhausted(&message, come_again_after).with("refusal", self.name()).into()
    }
}

/// What a request hears that comes too late, or takes too long.
pub(crate) fn shutting_down() -> Status {
    status(ErrorCode::Unavailable, "the coordinator is shutting down")
}

/// What a request hears for which there is no room, with when to try again where nothing better is known.
pub(crate) fn no_room(message: &str) -> Status {
    exhausted(message, pace::UNKNOWN).into()
}

/// RESOURCE_EXHAUSTED with the delay three times: for people, for clients that know `google.rpc.RetryInfo`, and for gRPC
/// libraries that retry by themselves.
fn exhausted(message: &str, after: Duration) -> Failure {
    let after = Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    let message = format!("{message}; try again after {} s", after.as_secs_f64());
    Failure::new(ErrorCode::ResourceExhausted, message).retry_after(after)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn people_clients_and_libraries_are_told_the_same_delay() {
        let status = Refusal::Full.status(&Limits::default(), Duration::from_micros(1_234_567));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().ends_with("; try again after 1.234 s"), "{}", status.message());
        let details = status.get_details_retry_info().unwrap();
        assert_eq!(details.retry_delay, Some(Duration::from_millis(1234)));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1234");
        assert_eq!(status.get_details_error_info().unwrap().metadata["refusal"], "line_full");
    }

    #[test]
    fn every_refusal_for_want_of_room_names_its_limit() {
        for (refusal, limit) in [
            (Refusal::Full, "limits.max_sessions"),
            (Refusal::Full, "limits.max_tokens_in_progress"),
            (Refusal::Full, "limits.max_waiting"),
            (Refusal::Displaced, "limits.max_waiting"),
            (Refusal::WaitedTooLong, "limits.max_wait_ms"),
        ] {
            let status = refusal.status(&Limits::default(), Duration::from_secs(1));
            assert!(status.message().contains(limit), "{}", status.message());
            assert!(status.message().ends_with("; try again after 1 s"), "{}", status.message());
        }
    }
}
