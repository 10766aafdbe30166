//! [`Options`]: how an element of a request is to be answered, from parameters and from tensors; whether the values are allowed
//! is the ensemble's to say.
//!
//! Knows nothing about inputs and outputs.

use std::collections::HashMap;

use chorus_proto::v1::{FusionOptions, RowFormat, Rule, SamplingOptions};

use crate::error::Refusal;
use crate::outputs::Task;
use crate::tensor::Value;

/// Options of one element.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) sampling: Option<SamplingOptions>,
    pub(crate) top_n: Option<u32>,
    pub(crate) fusion: FusionOptions,
}

/// Every option, and the task that it is for, if it is for one only. The first ones may be tensors too.
const NAMES: [(&str, Option<Task>); 15] = [
    ("max_tokens", Some(Task::Generate)),
    ("temperature", Some(Task::Generate)),
    ("top_k", Some(Task::Generate)),
    ("top_p", Some(Task::Generate)),
    ("seed", Some(Task::Generate)),
    ("stop", Some(Task::Generate)),
    ("top_n", Some(Task::Predict)),
    ("rule", None),
    ("threshold", None),
    ("weights", None),
    ("whole_rows", None),
    ("row_format", None),
    ("allow_degraded", None),
    ("adaptive", None),
    ("forgetting", None),
];
const TENSORS: usize = 7;

/// Whether there is such an option.
pub(crate) fn is_option(name: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == name)
}

/// Whether it may be a tensor.
pub(crate) fn is_tensor(name: &str) -> bool {
    NAMES[..TENSORS].iter().any(|(known, _)| *known == name)
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
    /// Sets one; of `stop` adds one.
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

    fn sampling(&mut self) -> &mut SamplingOptions {
        self.sampling.get_or_insert_default()
    }
}

/// A value as a sentence shows it.
fn shown(value: Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Bytes(value) => format!("'{}'", String::from_utf8_lossy(value)),
    }
}

fn natural(value: Value<'_>) -> Result<u64, String> {
    let natural = match value {
        Value::Signed(value) => u64::try_from(value).ok(),
        Value::Unsigned(value) => Some(value),
        Value::Bool(_) | Value::Float(_) | Value::Bytes(_) => None,
    };
    natural
        .ok_or_else(|| format!("{} is not allowed; allowed: integers from 0 to {}", shown(value), u64::MAX))
}

fn small(value: Value<'_>) -> Result<u32, String> {
    let small = natural(value).ok().and_then(|value| u32::try_from(value).ok());
    small.ok_or_else(|| format!("{} is not allowed; allowed: integers from 0 to {}", shown(value), u32::MAX))
}

fn number(value: Value<'_>) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(value),
        // Integers of a parameter or a tensor that are beyond 53 bits are of no use to any option.
        #[allow(clippy::cast_precision_loss)]
        Value::Signed(value) => Ok(value as f64),
        #[allow(clippy::cast_precision_loss)]
        Value::Unsigned(value) => Ok(value as f64),
        Value::Bool(_) | Value::Bytes(_) => Err(format!("{} is not allowed; allowed: numbers", shown(value))),
    }
}

pub(crate) fn truth(value: Value<'_>) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(value),
        _ => Err(format!("{} is not allowed; allowed: true or false", shown(value))),
    }
}

pub(crate) fn text(value: Value<'_>) -> Result<&str, String> {
    match value {
        Value::Bytes(bytes) => str::from_utf8(bytes)
            .map_err(|error| format!("it is no UTF-8 after byte {}; allowed: UTF-8", error.valid_up_to())),
        _ => Err(format!("{} is not allowed; allowed: text", shown(value))),
    }
}

const RULES: [Rule; 5] =
    [Rule::WeightedAverage, Rule::ThresholdVote, Rule::LogLinear, Rule::LogitMean, Rule::LogitMax];

fn rule(name: &str) -> Result<Rule, String> {
    let rule_name = |rule: Rule| rule.as_str_name().trim_start_matches("RULE_").to_ascii_lowercase();
    let rule = RULES.into_iter().find(|rule| rule_name(*rule) == name);
    rule.ok_or_else(|| format!("'{name}' is no rule; allowed: {}", RULES.map(rule_name).join(", ")))
}

fn row_format(name: &str) -> Result<RowFormat, String> {
    match name {
        "f32" => Ok(RowFormat::F32),
        "f16" => Ok(RowFormat::F16),
        "bf16" => Ok(RowFormat::Bf16),
        other => Err(format!("'{other}' is no format; allowed: f32, f16, bf16")),
    }
}

/// `alto=2,bass=1`, of all members.
fn weights(list: &str) -> Result<HashMap<String, f64>, String> {
    let mut weights = HashMap::new();
    for entry in list.split(',') {
        let weight = entry
            .split_once('=')
            .and_then(|(name, weight)| Some((name.trim().to_owned(), weight.trim().parse::<f64>().ok()?)));
        let Some((name, weight)) = weight else {
            return Err(format!(
                "'{entry}' is no weight; allowed: NAME=NUMBER for every member, with commas between"
            ));
        };
        if weights.insert(name, weight).is_some() {
            return Err(format!("'{entry}' is there twice; allowed: each member once"));
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
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
