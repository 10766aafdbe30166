//! [`Failure`]: what a caller hears instead of an answer, as gRPC's richer error model has it: a code and a sentence, and beside
//! them `google.rpc.ErrorInfo`, `BadRequest` and `RetryInfo` for programs. Every status of a coordinator's own is made here.
//!
//! Knows nothing about who fails or why.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error_code::{LONGEST_MESSAGE, code_of, shortened};
use crate::v1::ErrorCode;

/// Who says so: `google.rpc.ErrorInfo.domain`.
const DOMAIN: &str = "chorus";
/// What the names of all codes begin with, and reasons do not.
const CODE_PREFIX: &str = "ERROR_CODE_";
/// The milliseconds after which a gRPC client with a retry policy tries again: gRFC A6, "Pushback".
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Of what the details repeat of the sentence, in characters.
const LONGEST_DETAIL: usize = 200;
/// Of a field's name, which they have twice.
const LONGEST_FIELD: usize = 60;
/// A sentence of more bytes than this, which is one of other than ASCII characters, is cut to so many characters: with the
/// details it travels three times in headers, where clients allow 8 KiB.
const MOST_BYTES: usize = 1200;
const LONGEST_OF_THESE: usize = 300;

/// What went wrong, until it is a [`Status`].
///
/// ```
/// use chorus_proto::Failure;
/// use tonic::{Code, Status};
///
/// let refusal = Status::from(Failure::of_field("max_tokens", "0 is not allowed; allowed: 1 to 9"));
/// assert_eq!(refusal.code(), Code::InvalidArgument);
/// assert_eq!(refusal.message(), "max_tokens: 0 is not allowed; allowed: 1 to 9");
/// ```
#[derive(Debug)]
pub struct Failure {
    code: Code,
    reason: &'static str,
    message: String,
    details: ErrorDetails,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of which there is nothing more to say. Its code is that of `error`, its reason the name of `error` without its prefix.
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        let name = error.as_str_name();
        Self::of_code(code_of(error), name.strip_prefix(CODE_PREFIX).unwrap_or(name), message)
    }

    /// The same with a code that no [`ErrorCode`] has, and a reason in capitals.
    pub fn of_code(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: ErrorDetails::new(),
            metadata: HashMap::new(),
            retry_after: None,
        }
    }

    /// A caller's mistake in a field, by its path in the request. The sentence says what was wrong and what is allowed.
    pub fn of_field(field: &str, message: &str) -> Self {
        Self::new(ErrorCode::InvalidArgument, format!("{field}: {message}")).field(field, message)
    }

    /// Which field of the request is at fault, where the sentence is about one.
    pub fn field(mut self, field: &str, message: &str) -> Self {
        // A caller may have made up the field.
        let name = shortened(field, LONGEST_FIELD);
        self.details.add_bad_request_violation(name.as_str(), shortened(message, LONGEST_DETAIL));
        self.with("field", &name)
    }

    /// Something that a program may want to know.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), shortened(value, LONGEST_DETAIL));
        self
    }

    /// When it is worth trying again: in `RetryInfo`, and for gRPC libraries that retry by themselves.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Failure { code, reason, message, mut details, metadata, retry_after } = failure;
        let mut message = shortened(&message, LONGEST_MESSAGE);
        if message.len() > MOST_BYTES {
            message = shortened(&message, LONGEST_OF_THESE);
        }
        details.set_error_info(reason, DOMAIN, metadata);
        if let Some(after) = retry_after {
            details.set_retry_info(Some(after));
        }
        let mut status = Self::with_error_details(code, message, details);
        if let Some(after) = retry_after {
            let milliseconds = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(RETRY_PUSHBACK, MetadataValue::from(milliseconds));
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_at_fault_is_named_for_people_and_for_programs() {
        let status = Status::from(Failure::of_field("max_tokens", "0 is not allowed; allowed: 1 to 9"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "max_tokens: 0 is not allowed; allowed: 1 to 9");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "max_tokens");
        assert_eq!(violations[0].description, "0 is not allowed; allowed: 1 to 9");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_ARGUMENT", "chorus"));
        assert_eq!(info.metadata["field"], "max_tokens");
    }

    #[test]
    fn every_code_is_a_reason() {
        let all: Vec<ErrorCode> = (0..).map_while(|number| ErrorCode::try_from(number).ok()).collect();
        for code in all {
            let status = Status::from(Failure::new(code, "words"));
            assert_eq!((status.code(), status.message()), (code_of(code), "words"));
            let info = status.get_details_error_info().unwrap();
            assert_eq!(format!("ERROR_CODE_{}", info.reason), code.as_str_name());
            assert!(status.get_details_bad_request().is_none() && status.get_details_retry_info().is_none());
        }
    }

    /// What a client allows to headers, and most of it is ours.
    #[test]
    fn whatever_a_caller_wrote_the_headers_stay_small() {
        for quoted in ["x", "\u{e9}", "\u{20ac}", "\u{1d11e}", "%", " \n"] {
            let message = format!("{} is no member", quoted.repeat(100_000));
            for field in ["fusion.weights", &message] {
                let status = Failure::of_field(field, &message).with("quoted", &message);
                let response = Status::from(status.retry_after(Duration::from_secs(1))).into_http::<()>();
                let headers = response.headers().iter();
                let bytes: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
                assert!(bytes < 8192, "{bytes} for {quoted:?}");
            }
        }
    }
}
