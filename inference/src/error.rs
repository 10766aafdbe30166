//! [`Refusal`]: a caller's mistake in the words of this protocol; and what an ensemble says of one, in the same words.
//!
//! Knows nothing about what is right.

use std::fmt;

use chorus_proto::Failure;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

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
        Failure::of_field(&refusal.field, &refusal.message).into()
    }
}

/// What `chorus.v1` calls a request's text or token ids.
const INPUTS: [&str; 3] = ["prompt", "input", "prefix"];

/// An ensemble's status with the names of this protocol, in its sentence and in its details: `input` is the tensor that has the input,
/// `element` the place in a batch, where there is one. Everything else stays.
pub(crate) fn translated(failure: &Status, input: &str, element: Option<usize>) -> Status {
    let Some((field, rest)) = failure.message().split_once(": ") else { return failure.clone() };
    if failure.code() != Code::InvalidArgument {
        return failure.clone();
    }
    let name = match field.rsplit('.').next().unwrap_or(field) {
        _ if INPUTS.contains(&field) => input,
        _ if ["beam", "beam.size"].contains(&field) => "beam_size",
        "log_probs" => "generated_logprobs",
        name => name,
    };
    let place = element.map_or_else(String::new, |element| format!("[{element}]"));
    let told = failure.get_details_error_info().map(|info| info.metadata).unwrap_or_default();
    let others = told.iter().filter(|(key, _)| *key != "field");
    let renamed = others.fold(Failure::of_field(&format!("{name}{place}"), rest), |renamed, (key, value)| {
        renamed.with(key, value)
    });
    let mut renamed = Status::from(renamed);
    *renamed.metadata_mut() = failure.metadata().clone();
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field of `google.rpc.BadRequest`, and what `google.rpc.ErrorInfo` has.
    fn details(status: &Status) -> (String, String, Vec<(String, String)>) {
        let violation = status.get_details_bad_request().unwrap().field_violations.remove(0);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_ARGUMENT", "chorus"));
        let mut told: Vec<_> = info.metadata.into_iter().collect();
        told.sort();
        (violation.field, violation.description, told)
    }

    #[test]
    fn programs_hear_the_same_names_as_people() {
        let own = Status::from(Refusal::new("text", "it is missing; allowed: BYTES"));
        let field = |name: &str| ("field".to_owned(), name.to_owned());
        assert_eq!(own.message(), "text: it is missing; allowed: BYTES");
        assert_eq!(
            details(&own),
            ("text".into(), "it is missing; allowed: BYTES".into(), vec![field("text")])
        );

        let theirs = Failure::of_field("sampling.top_p", "2 is too much").with("revision", "7");
        let theirs = translated(&Status::from(theirs), "text", Some(2));
        assert_eq!(theirs.message(), "top_p[2]: 2 is too much");
        let told = vec![field("top_p[2]"), ("revision".into(), "7".into())];
        assert_eq!(details(&theirs), ("top_p[2]".into(), "2 is too much".into(), told));
    }

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
