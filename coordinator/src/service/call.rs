//! [`Call`]: whose call it is, when it began, and when it has to be over (its `grpc-timeout`).
//!
//! Knows nothing about what the call does.

use std::time::Duration;

use chorus_proto::v1::ErrorCode;
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::admission::Caller;
use crate::failure::status;

/// A little earlier than its caller's deadline ends a call at most by this.
const MOST_EARLIER: Duration = Duration::from_millis(100);

/// What is known of a call before its request is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    caller: Caller,
    begun: Instant,
    /// When it has to be over, if its caller said so.
    deadline: Option<Instant>,
}

impl Call {
    /// A call that has just begun. Its deadline is a little earlier than the caller's, so that its sentence arrives before the
    /// caller's own clock, or the transport's, ends the call without one.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        let earlier = |timeout: Duration| timeout - (timeout / 32).min(MOST_EARLIER);
        // A deadline beyond what the clock can count is none.
        let begun = Instant::now();
        let deadline = timeout.and_then(|timeout| begun.checked_add(earlier(timeout)));
        Self { caller: Caller::of(request), begun, deadline }
    }

    /// Whose it is.
    pub(super) fn caller(self) -> Caller {
        self.caller
    }

    /// When it began.
    pub(super) fn begun(self) -> Instant {
        self.begun
    }

    /// When it has to be over, if it has.
    pub(super) fn deadline(self) -> Option<Instant> {
        self.deadline
    }

    /// Resolves when its deadline has passed; never where there is none.
    pub(super) async fn passed(self) -> Status {
        match self.deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        status(ErrorCode::DeadlineExceeded, "the deadline that the call came with (grpc-timeout) has passed")
    }
}

/// At most eight digits and a unit, as "gRPC over HTTP2" has it. What is no such thing is no deadline.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_the_specification_are_read_and_nothing_else() {
        for (value, expected) in [
            ("3H", Some(Duration::from_secs(10_800))),
            ("2M", Some(Duration::from_secs(120))),
            ("1S", Some(Duration::from_secs(1))),
            ("500m", Some(Duration::from_millis(500))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
        for value in ["", "S", "1", "-1S", "+1S", "1.5S", "123456789S", "1s", "1µ", "abc"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
