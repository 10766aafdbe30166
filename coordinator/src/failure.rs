//! What callers hear instead of an answer, made of what went wrong here. Knows nothing about who fails or why.

pub(crate) use chorus_proto::Failure;
use chorus_proto::v1::ErrorCode;
use tonic::Status;

use crate::request::RequestError;

/// A failure of which there is nothing more to say.
pub(crate) fn status(code: ErrorCode, message: impl Into<String>) -> Status {
    Failure::new(code, message).into()
}

/// A caller's mistake.
pub(crate) fn refused(error: &RequestError) -> Status {
    Failure::of_field(error.field, &error.message).into()
}
