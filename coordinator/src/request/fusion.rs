//! What a request may change of the configured fusion. Knows nothing about the other fields.

use chorus_proto::v1::{self, FusionOptions, RowFormat};

use super::{RequestError, Terms};
use crate::{
    fusion::{Fusion, Rule},
    plan::RowOptions,
    weights::Weights,
};

/// The rule, threshold and weights of a request: the configured ones with what the request overrides. And how it wants
/// whole rows to be used, and whether members may be missing.
pub(super) fn check(
    options: Option<FusionOptions>,
    terms: &Terms<'_>,
) -> Result<(Fusion, Weights, RowOptions, bool), RequestError> {
    let options = options.unwrap_or_default();
    let rule = check_rule(options.rule)?.unwrap_or(terms.fusion.rule);
    let rows = RowOptions { whole: options.whole_rows, format: check_format(options.row_format, rule)? };
    let threshold = match options.threshold {
        Some(threshold) => check_threshold(threshold, rule)?,
        None => terms.fusion.threshold,
    };
    let weights = if options.weights.is_empty() {
        terms.weights.clone()
    } else if rule.uses_weights() {
        let weights = Weights::by_name(terms.members, &options.weights);
        weights.map_err(|error| RequestError::new("fusion.weights", error.to_string()))?
    } else {
        let message = format!("{rule} uses no weights; allowed: none, or a rule that uses them");
        return Err(RequestError::new("fusion.weights", message));
    };
    Ok((Fusion { rule, threshold }, weights, rows, options.allow_degraded.unwrap_or(true)))
}

fn check_rule(number: i32) -> Result<Option<Rule>, RequestError> {
    let rule = v1::Rule::try_from(number).map_err(|_| {
        let names = Rule::ALL.map(|rule| format!("{} ({rule})", v1::Rule::from(rule) as i32));
        let message = format!("{number} is no rule; allowed: {}", names.join(", "));
        RequestError::new("fusion.rule", message)
    })?;
    Ok(Rule::from_proto(rule))
}

fn check_format(number: i32, rule: Rule) -> Result<RowFormat, RequestError> {
    let error = |message: String| RequestError::new("fusion.row_format", message);
    let format = RowFormat::try_from(number)
        .map_err(|_| error(format!("{number} is no format; allowed: 0 (f32), 1 (f16), 2 (bf16)")))?;
    if format != RowFormat::F32 && rule == Rule::LogitMax {
        let message = "logit_max compares the members' own logits, of which only distances travel in two bytes; allowed: f32, \
                       or another rule";
        return Err(error(message.to_owned()));
    }
    Ok(format)
}

fn check_threshold(threshold: f64, rule: Rule) -> Result<f64, RequestError> {
    let error = |message: String| Err(RequestError::new("fusion.threshold", message));
    if !Fusion::threshold_is_valid(threshold) {
        return error(format!("{threshold} is not allowed; allowed: at least 0 and less than 1"));
    }
    if rule != Rule::ThresholdVote {
        return error(format!("{rule} has no threshold; allowed: none, or the rule threshold_vote"));
    }
    Ok(threshold)
}
