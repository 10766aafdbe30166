//! The one table between the wire's [`ErrorCode`] and gRPC's [`Code`]. Knows nothing about who fails or why.

use tonic::{Code, Status};

use crate::v1::ErrorCode;

/// The gRPC code that callers see for an error code.
pub fn code_of(error: ErrorCode) -> Code {
    match error {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::UnknownSession => Code::NotFound,
        ErrorCode::StepOutOfOrder => Code::Aborted,
        ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::NotFinite => Code::DataLoss,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Unspecified => Code::Unknown,
    }
}

/// The error code behind a gRPC code. Inverse of [`code_of`]; codes that Chorus never sends are read by their meaning.
pub fn error_code_of(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::UnknownSession,
        Code::Aborted => ErrorCode::StepOutOfOrder,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::Unavailable => ErrorCode::Unavailable,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::Cancelled => ErrorCode::Cancelled,
        Code::DataLoss => ErrorCode::NotFinite,
        Code::FailedPrecondition | Code::AlreadyExists => ErrorCode::FailedPrecondition,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Internal | Code::Unimplemented => ErrorCode::Internal,
        Code::Ok | Code::Unknown => ErrorCode::Unspecified,
    }
}

/// The longest message of a status, in characters. Messages travel in a header, where clients allow 8 KiB, percent-encoded,
/// and what a caller sent may stand in them.
pub(crate) const LONGEST_MESSAGE: usize = 600;

/// A gRPC status for an error code with a sentence for people. A sentence that is too long loses its middle: what was
/// wrong stands at its beginning, what is allowed at its end.
pub fn status(error: ErrorCode, message: impl Into<String>) -> Status {
    Status::new(code_of(error), shortened(&message.into(), LONGEST_MESSAGE))
}

/// A sentence of at most about `longest` characters, on one line: one that is too long loses its middle, and control
/// characters become spaces, so that nobody who is quoted begins a line of a log or commands a terminal.
///
/// ```
/// assert_eq!(chorus_proto::shortened("abcdefgh", 4), "ab [...] gh");
/// assert_eq!(chorus_proto::shortened("ab\nd", 4), "ab d");
/// ```
pub fn shortened(message: &str, longest: usize) -> String {
    let visible = |character: char| if character.is_control() { ' ' } else { character };
    let characters = message.chars().count();
    if characters <= longest {
        return message.chars().map(visible).collect();
    }
    let head = message.chars().take(longest / 2).map(visible);
    let tail = message.chars().skip(characters - longest / 2).map(visible);
    head.chain(" [...] ".chars()).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let sentence = format!("weights: {} is no member; allowed: alto", "\u{1d11e}".repeat(100_000));
        let message = status(ErrorCode::InvalidArgument, sentence).message().to_owned();
        assert!(message.starts_with("weights: ") && message.ends_with("allowed: alto"));
        // Four bytes a character, each percent-encoded as three.
        assert!(message.len() * 3 <= 8192);
        assert_eq!(status(ErrorCode::Internal, "short").message(), "short");
    }

    #[test]
    fn every_error_code_survives_the_way_to_a_grpc_code_and_back() {
        let all: Vec<ErrorCode> = (0..).map_while(|number| ErrorCode::try_from(number).ok()).collect();
        assert!(all.len() > 10, "the enum's numbers are dense from 0");
        for error in all {
            assert_eq!(error_code_of(code_of(error)), error);
        }
    }
}
