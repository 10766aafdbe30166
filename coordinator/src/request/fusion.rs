//! What a request may change of the configured fusion. Knows nothing about the other fields.

use chorus_proto::v1::{self, FusionOptions, RowFormat};

use super::{RequestError, Terms};
use crate::{
    fusion::{Fusion, Rule},
    plan::RowOptions,
    weights::{Weighting, Weights},
};

/// What a token is worth in the evidence for a member when the next one comes, where a request does not say.
const DEFAULT_FORGETTING: f64 = 0.8;

/// How a request wants the members' answers to become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusing {
    /// The rule and threshold.
    pub fusion: Fusion,
    /// The weights.
    pub weighting: Weighting,
    /// How whole rows are to be used.
    pub rows: RowOptions,
    /// Whether members may be missing.
    pub allow_degraded: bool,
}

impl Fusing {
    /// The same for whoever answers alone in place of the ensemble.
    pub(crate) fn alone(&self) -> Self {
        Self { weighting: Weighting::fixed(Weights::equal(1)), ..self.clone() }
    }
}

/// The configured fusion with what the request overrides.
pub(super) fn check(options: Option<FusionOptions>, terms: &Terms<'_>) -> Result<Fusing, RequestError> {
    let options = options.unwrap_or_default();
    let rule = check_rule(options.rule)?.unwrap_or(terms.fusion.rule);
    let learned = terms.learned.and_then(|learned| learned.rule(rule));
    let rows = RowOptions { whole: options.whole_rows, format: check_format(options.row_format, rule)? };
    let threshold = match options.threshold {
        Some(threshold) => check_threshold(threshold, rule)?,
        None => learned.and_then(|learned| learned.threshold).unwrap_or(terms.fusion.threshold),
    };
    let mut weighting = if !options.weights.is_empty() {
        Weighting::fixed(check_weights(&options, rule, terms)?)
    } else if let Some(learned) = learned {
        Weighting::learned(learned.clone(), terms.weights.clone())
    } else {
        Weighting::fixed(terms.weights.clone())
    };
    if let Some(forgetting) = check_forgetting(&options, rule)? {
        weighting = weighting.adaptive(forgetting);
    }
    Ok(Fusing {
        fusion: Fusion { rule, threshold },
        weighting,
        rows,
        allow_degraded: options.allow_degraded.unwrap_or(true),
    })
}

/// For what needs one distribution at every position, whatever stands beside it.
pub(super) fn fixed_distribution(fusing: &Fusing) -> Result<(), RequestError> {
    let rule = fusing.fusion.rule;
    if !rule.yields_distribution() {
        let message = format!("{rule} has no distribution and so no log-likelihoods; allowed: another rule");
        return Err(RequestError::new("fusion.rule", message));
    }
    if fusing.weighting.is_adaptive() {
        let message = "weights follow one text, and here are many; allowed: false";
        return Err(RequestError::new("fusion.adaptive", message));
    }
    Ok(())
}

fn check_weights(options: &FusionOptions, rule: Rule, terms: &Terms<'_>) -> Result<Weights, RequestError> {
    if !rule.uses_weights() {
        let message = format!("{rule} uses no weights; allowed: none, or a rule that uses them");
        return Err(RequestError::new("fusion.weights", message));
    }
    let weights = Weights::by_name(terms.members, &options.weights);
    weights.map_err(|error| RequestError::new("fusion.weights", error.to_string()))
}

fn check_forgetting(options: &FusionOptions, rule: Rule) -> Result<Option<f64>, RequestError> {
    if !options.adaptive {
        return match options.forgetting {
            None => Ok(None),
            Some(_) => {
                let message = "only weights that follow the text forget it; allowed: none, or adaptive";
                Err(RequestError::new("fusion.forgetting", message))
            }
        };
    }
    if rule != Rule::WeightedAverage {
        let message = format!("{rule} is no mixture of the members; allowed: false, or weighted_average");
        return Err(RequestError::new("fusion.adaptive", message));
    }
    let forgetting = options.forgetting.unwrap_or(DEFAULT_FORGETTING);
    if forgetting > 0.0 && forgetting <= 1.0 {
        return Ok(Some(forgetting));
    }
    let message = format!("{forgetting} is not allowed; allowed: above 0 and at most 1");
    Err(RequestError::new("fusion.forgetting", message))
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
