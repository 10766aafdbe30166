//! [`Participation`]: who took part in all that one response has, as its parameters say it. No response goes out without.
//!
//! Knows nothing about what they answered.

use std::collections::HashMap;

use chorus_proto::Failure;
use chorus_proto::v1::{self, ErrorCode};
use tonic::Status;

use crate::catalogue::Model;
use crate::pb::InferParameter;
use crate::pb::infer_parameter::ParameterChoice;

/// Who took part in everything, and who was missing from anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Participation {
    participants: Option<Vec<String>>,
    /// With the reasons.
    missing: Vec<(String, String)>,
    /// Who answered in place of the ensemble.
    fallback: Option<String>,
}

impl Participation {
    /// One more answer of a model.
    ///
    /// # Errors
    /// UNAVAILABLE, where a member was asked alone and somebody else answered.
    pub(crate) fn add(&mut self, model: &Model, answer: v1::Participation) -> Result<(), Status> {
        let v1::Participation { mut participants, mut missing, fallback, .. } = answer;
        if model.is_member {
            if !participants.contains(&model.name) {
                let reason = missing.iter().find(|missing| missing.name == model.name);
                let reason = reason.map_or("others answered", |missing| missing.reason.as_str());
                let message = format!("model '{}' did not answer: {reason}", model.name);
                return Err(Failure::new(ErrorCode::Unavailable, message).into());
            }
            // Nobody else was asked for anything.
            participants.retain(|name| *name == model.name);
            missing.retain(|missing| missing.name == model.name);
        }
        match &mut self.participants {
            None => self.participants = Some(participants),
            Some(known) => known.retain(|name| participants.contains(name)),
        }
        for absent in missing {
            if self.missing.iter().all(|(name, _)| *name != absent.name) {
                self.missing.push((absent.name, absent.reason));
            }
        }
        self.fallback = self.fallback.take().or(fallback.map(|fallback| fallback.name));
        Ok(())
    }

    /// As parameters of a response.
    pub(crate) fn into_parameters(self) -> HashMap<String, InferParameter> {
        let degraded = !self.missing.is_empty() || self.fallback.is_some();
        let missing = self.missing.iter().map(|(name, reason)| format!("{name}: {reason}"));
        let missing = missing.collect::<Vec<_>>().join("; ");
        let mut parameters = HashMap::from([
            ("participants".to_owned(), text(self.participants.unwrap_or_default().join(","))),
            ("missing".to_owned(), text(missing)),
            ("degraded".to_owned(), truth(degraded)),
        ]);
        if let Some(fallback) = self.fallback {
            parameters.insert("fallback".to_owned(), text(fallback));
        }
        parameters
    }
}

pub(crate) fn number(value: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) }
}

pub(crate) fn text(value: String) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::StringParam(value)) }
}

pub(crate) fn truth(value: bool) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}
