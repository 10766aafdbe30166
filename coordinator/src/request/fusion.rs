//! What a request may change of the configured fusion. Knows nothing about the other fields.

use chorus_proto::v1::{self, FusionOptions};

use super::{RequestError, Terms};
use crate::{
    fusion::{Fusion, Rule},
    weights::Weights,
};

/// The rule, threshold and weights of a request: the configured ones with what the request overrides.
pub(super) fn check(
    options: Option<FusionOptions>,
    terms: &Terms<'_>,
) -> Result<(Fusion, Weights), RequestError> {
    let options = options.unwrap_or_default();
    let rule = check_rule(options.rule)?.unwrap_or(terms.fusion.rule);
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
    Ok((Fusion { rule, threshold }, weights))
}

fn check_rule(number: i32) -> Result<Option<Rule>, RequestError> {
    let rule = v1::Rule::try_from(number).map_err(|_| {
        let names = Rule::ALL.map(|rule| format!("{} ({rule})", v1::Rule::from(rule) as i32));
        let message = format!("{number} is no rule; allowed: {}", names.join(", "));
        RequestError::new("fusion.rule", message)
    })?;
    Ok(Rule::from_proto(rule))
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
