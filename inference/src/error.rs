//! [`Refusal`]: a caller's mistake in the words of this protocol; and what an ensemble says of one, in the same words.
//!
//! Knows nothing about what is right.

use std::fmt;

use chorus_proto::status;
use chorus_proto::v1::ErrorCode;
use tonic::{Code, Status};

/// A caller's mistake: which tensor or parameter, what was wrong, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    field: String,
    message: String,
}

impl Refusal {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status(ErrorCode::InvalidArgument, refusal.to_string())
    }
}

/// What `chorus.v1` calls a request's text or token ids.
const INPUTS: [&str; 3] = ["prompt", "input", "prefix"];

/// An ensemble's status with the names of this protocol: `input` is the tensor that has the input, `element` the place in a
/// batch, where there is one. Code, details and metadata stay.
pub(crate) fn translated(failure: &Status, input: &str, element: Option<usize>) -> Status {
    let said = failure.message();
    let message = match said.split_once(": ") {
        Some((field, rest)) if failure.code() == Code::InvalidArgument => {
            let name = field.rsplit('.').next().unwrap_or(field);
            let name = match name {
                _ if INPUTS.contains(&field) => input,
                _ if ["beam", "beam.size"].contains(&field) => "beam_size",
                "log_probs" => "generated_logprobs",
                name => name,
            };
            let place = element.map_or_else(String::new, |element| format!("[{element}]"));
            format!("{name}{place}: {rest}")
        }
        _ => said.to_owned(),
    };
    Status::with_details_and_metadata(
        failure.code(),
        message,
        failure.details().to_vec().into(),
        failure.metadata().clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ensemble_refuses_is_named_as_the_caller_called_it() {
        let said = |message: &str, element| {
            translated(&Status::invalid_argument(message), "tokens", element).message().to_owned()
        };
        assert_eq!(said("prompt: it is empty", None), "tokens: it is empty");
        assert_eq!(said("sampling.top_p: 2 is: too much", None), "top_p: 2 is: too much");
        assert_eq!(said("beam.size: 9 is not allowed", None), "beam_size: 9 is not allowed");
        assert_eq!(said("prefix: it is empty", Some(3)), "tokens[3]: it is empty");
        assert_eq!(said("no field", None), "no field");
        let unavailable = translated(&Status::unavailable("quorum: 1 of 2"), "text", None);
        assert_eq!(unavailable.message(), "quorum: 1 of 2");
    }
}
