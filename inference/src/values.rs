//! Values of options, each as the kind that its field has; or the sentence that says what is allowed instead.
//!
//! Knows nothing about which options there are.

use std::collections::HashMap;

use chorus_proto::v1::{RowFormat, Rule, TokenIds};

use crate::tensor::Value;

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

pub(crate) fn natural(value: Value<'_>) -> Result<u64, String> {
    let natural = match value {
        Value::Signed(value) => u64::try_from(value).ok(),
        Value::Unsigned(value) => Some(value),
        Value::Bool(_) | Value::Float(_) | Value::Bytes(_) => None,
    };
    natural
        .ok_or_else(|| format!("{} is not allowed; allowed: integers from 0 to {}", shown(value), u64::MAX))
}

pub(crate) fn small(value: Value<'_>) -> Result<u32, String> {
    let small = natural(value).ok().and_then(|value| u32::try_from(value).ok());
    small.ok_or_else(|| format!("{} is not allowed; allowed: integers from 0 to {}", shown(value), u32::MAX))
}

/// One more token of a set.
pub(crate) fn add(value: Value<'_>, tokens: &mut Option<TokenIds>) -> Result<(), String> {
    let id = small(value)?;
    tokens.get_or_insert_default().ids.push(i64::from(id));
    Ok(())
}

pub(crate) fn number(value: Value<'_>) -> Result<f64, String> {
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

pub(crate) fn rule(name: &str) -> Result<Rule, String> {
    let rule_name = |rule: Rule| rule.as_str_name().trim_start_matches("RULE_").to_ascii_lowercase();
    let rule = RULES.into_iter().find(|rule| rule_name(*rule) == name);
    rule.ok_or_else(|| format!("'{name}' is no rule; allowed: {}", RULES.map(rule_name).join(", ")))
}

pub(crate) fn row_format(name: &str) -> Result<RowFormat, String> {
    match name {
        "f32" => Ok(RowFormat::F32),
        "f16" => Ok(RowFormat::F16),
        "bf16" => Ok(RowFormat::Bf16),
        other => Err(format!("'{other}' is no format; allowed: f32, f16, bf16")),
    }
}

/// `alto=2,bass=1`, of all members.
pub(crate) fn weights(list: &str) -> Result<HashMap<String, f64>, String> {
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
