//! [`Failure`]: why a request failed, as JSON, and which HTTP status goes with which gRPC code.
//!
//! Knows nothing about what was asked.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The HTTP status of what a browser gave up; no standard has one.
const GIVEN_UP: u16 = 499;

/// What a caller hears of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Path of the field at fault, such as `sampling.temperature`.
    pub(crate) field: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// With which credentials it could be otherwise.
    pub(crate) challenge: Option<HeaderValue>,
    /// Where it is not the one that goes with the code.
    pub(crate) http: Option<StatusCode>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, retry_after: None, challenge: None, http: None }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// What HTTP itself has a word for.
    pub(crate) fn of_http(http: StatusCode, message: impl Into<String>) -> Self {
        let code = match http {
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        Self { http: Some(http), ..Self::new(code, message) }
    }

    fn http(&self) -> StatusCode {
        let status = self.http.or_else(|| StatusCode::from_u16(names(self.code).1).ok());
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("code".into(), names(self.code).0.into());
        object.insert("message".into(), self.message.clone().into());
        if let Some(field) = &self.field {
            object.insert("field".into(), field.clone().into());
        }
        Value::Object(object)
    }

    /// The last line of an answer of which some lines are sent already.
    pub(crate) fn line(&self) -> Bytes {
        let object: Map<_, _> = [("error".to_owned(), self.json())].into_iter().collect();
        format!("{}\n", Value::Object(object)).into()
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        let field = violation.map(|violation| violation.field.clone());
        let field = field.filter(|field| !field.is_empty()).or_else(|| field_of(&status));
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let challenge = status.metadata().get(WWW_AUTHENTICATE.as_str());
        let challenge = challenge.and_then(|value| HeaderValue::from_bytes(value.as_encoded_bytes()).ok());
        Self { field, retry_after, challenge, ..Self::new(status.code(), status.message()) }
    }
}

/// What stands before a sentence about a field.
fn field_of(status: &Status) -> Option<String> {
    let (head, _) = status.message().split_once(": ")?;
    let is_path =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._[]".contains(letter);
    let named = status.code() == Code::InvalidArgument && !head.is_empty() && head.chars().all(is_path);
    named.then(|| head.to_owned())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.http();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, at least one: what comes sooner would be refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}

/// A code's name, and its HTTP status as google.rpc.Code has it.
fn names(code: Code) -> (&'static str, u16) {
    match code {
        Code::Ok => ("OK", 200),
        Code::Cancelled => ("CANCELLED", GIVEN_UP),
        Code::Unknown => ("UNKNOWN", 500),
        Code::InvalidArgument => ("INVALID_ARGUMENT", 400),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", 504),
        Code::NotFound => ("NOT_FOUND", 404),
        Code::AlreadyExists => ("ALREADY_EXISTS", 409),
        Code::PermissionDenied => ("PERMISSION_DENIED", 403),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", 429),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", 400),
        Code::Aborted => ("ABORTED", 409),
        Code::OutOfRange => ("OUT_OF_RANGE", 400),
        Code::Unimplemented => ("UNIMPLEMENTED", 501),
        Code::Internal => ("INTERNAL", 500),
        Code::Unavailable => ("UNAVAILABLE", 503),
        Code::DataLoss => ("DATA_LOSS", 500),
        Code::Unauthenticated => ("UNAUTHENTICATED", 401),
    }
}
