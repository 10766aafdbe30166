//! [`Options`]: how an element of a request is to be answered, from parameters and from tensors; whether the values are allowed
//! is the ensemble's to say.
//!
//! Knows nothing about inputs and outputs.

use chorus_proto::v1::{BeamOptions, FusionOptions, SamplingOptions};

use crate::error::Refusal;
use crate::outputs::Task;
use crate::tensor::Value;
use crate::values::{add, natural, number, row_format, rule, small, text, truth, weights};

/// Options of one element.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) sampling: Option<SamplingOptions>,
    pub(crate) beam: Option<BeamOptions>,
    pub(crate) top_n: Option<u32>,
    pub(crate) fusion: FusionOptions,
}

/// Every option, and the task that it is for, if it is for one only. The first ones may be tensors too.
const NAMES: [(&str, Option<Task>); 22] = [
    ("max_tokens", Some(Task::Generate)),
    ("temperature", Some(Task::Generate)),
    ("top_k", Some(Task::Generate)),
    ("top_p", Some(Task::Generate)),
    ("seed", Some(Task::Generate)),
    ("repetition_penalty", Some(Task::Generate)),
    ("stop", Some(Task::Generate)),
    ("allowed", Some(Task::Generate)),
    ("forbidden", Some(Task::Generate)),
    ("beam_size", Some(Task::Generate)),
    ("length_penalty", Some(Task::Generate)),
    ("n_best", Some(Task::Generate)),
    ("top_n", Some(Task::Predict)),
    ("members", None),
    ("rule", None),
    ("threshold", None),
    ("weights", None),
    ("whole_rows", None),
    ("row_format", None),
    ("allow_degraded", None),
    ("adaptive", None),
    ("forgetting", None),
];
const TENSORS: usize = 13;
/// Those that have any number of values.
const LISTS: [&str; 3] = ["stop", "allowed", "forbidden"];

/// Whether there is such an option.
pub(crate) fn is_option(name: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == name)
}

/// Whether it may be a tensor.
pub(crate) fn is_tensor(name: &str) -> bool {
    NAMES[..TENSORS].iter().any(|(known, _)| *known == name)
}

/// Whether it has any number of values.
pub(crate) fn is_list(name: &str) -> bool {
    LISTS.contains(&name)
}

/// The task that an option is for, if it is for one only.
pub(crate) fn task_of(name: &str) -> Option<Task> {
    NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, task)| *task)
}

/// All names, for people.
pub(crate) fn names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl Options {
    /// Sets one; of a list adds one.
    ///
    /// # Errors
    /// A value of another kind, or one that its field has no room for.
    pub(crate) fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), Refusal> {
        let fusion = &mut self.fusion;
        let set = match name {
            "max_tokens" => small(value).map(|value| self.max_tokens = Some(value)),
            "top_n" => small(value).map(|value| self.top_n = Some(value)),
            "stop" => text(value).map(|value| self.stop.push(value.to_owned())),
            "temperature" => number(value).map(|value| self.sampling().temperature = Some(value)),
            "top_k" => small(value).map(|value| self.sampling().top_k = Some(value)),
            "top_p" => number(value).map(|value| self.sampling().top_p = Some(value)),
            "seed" => natural(value).map(|value| self.sampling().seed = Some(value)),
            "repetition_penalty" => {
                number(value).map(|value| self.sampling().repetition_penalty = Some(value))
            }
            "allowed" => add(value, &mut self.sampling().allowed),
            "forbidden" => add(value, &mut self.sampling().forbidden),
            "beam_size" => small(value).map(|value| self.beam().size = value),
            "length_penalty" => number(value).map(|value| self.beam().length_penalty = Some(value)),
            "n_best" => small(value).map(|value| self.beam().n_best = Some(value)),
            "members" => text(value)
                .map(|names| fusion.members = names.split(',').map(|name| name.trim().to_owned()).collect()),
            "rule" => text(value).and_then(rule).map(|rule| fusion.set_rule(rule)),
            "threshold" => number(value).map(|value| fusion.threshold = Some(value)),
            "weights" => text(value).and_then(weights).map(|weights| fusion.weights = weights),
            "whole_rows" => truth(value).map(|value| fusion.whole_rows = value),
            "row_format" => text(value).and_then(row_format).map(|format| fusion.set_row_format(format)),
            "allow_degraded" => truth(value).map(|value| fusion.allow_degraded = Some(value)),
            "adaptive" => truth(value).map(|value| fusion.adaptive = value),
            "forgetting" => number(value).map(|value| fusion.forgetting = Some(value)),
            other => Err(format!("there is no option '{other}'; allowed: {}", names())),
        };
        set.map_err(|message| Refusal::new(name, message))
    }

    fn beam(&mut self) -> &mut BeamOptions {
        self.beam.get_or_insert_default()
    }

    fn sampling(&mut self) -> &mut SamplingOptions {
        self.sampling.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::Rule;

    use super::*;

    fn set(name: &str, value: Value<'_>) -> Result<Options, String> {
        let mut options = Options::default();
        options.set(name, value).map(|()| options).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn options_take_what_their_fields_have_room_for() {
        assert_eq!(set("max_tokens", Value::Unsigned(7)).unwrap().max_tokens, Some(7));
        assert_eq!(set("temperature", Value::Signed(1)).unwrap().sampling.unwrap().temperature, Some(1.0));
        assert_eq!(set("rule", Value::Bytes(b"log_linear")).unwrap().fusion.rule(), Rule::LogLinear);
        let weights = set("weights", Value::Bytes(b"alto=2, bass=0.5")).unwrap().fusion.weights;
        assert_eq!((weights["alto"], weights["bass"]), (2.0, 0.5));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (name, value, words) in [
            ("max_tokens", Value::Signed(-1), "max_tokens: -1 is not allowed; allowed: integers from 0"),
            ("top_k", Value::Unsigned(1 << 40), "4294967295"),
            ("seed", Value::Float(0.5), "seed: 0.5 is not allowed"),
            ("temperature", Value::Bytes(b"hot"), "temperature: 'hot' is not allowed; allowed: numbers"),
            ("rule", Value::Bytes(b"mean"), "weighted_average, threshold_vote, log_linear"),
            ("weights", Value::Bytes(b"alto"), "weights: 'alto' is no weight"),
            ("weights", Value::Bytes(b"a=1,a=2"), "twice"),
            ("stop", Value::Bytes(b"\xff"), "stop: it is no UTF-8"),
            ("adaptive", Value::Signed(1), "adaptive: 1 is not allowed; allowed: true or false"),
            ("whatever", Value::Bool(true), "whatever: there is no option"),
        ] {
            let refusal = set(name, value).unwrap_err();
            assert!(refusal.contains(words), "'{refusal}' does not say '{words}'");
        }
    }
}
