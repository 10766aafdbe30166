//! Options that change the ensemble's fusion for one request. Knows nothing about what the rules do.

use std::collections::HashMap;

use chorus_proto::v1::{FusionOptions, Rule};

use crate::failure::UsageError;

/// Fusion options, the same for every client command.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Fusion (default: as the ensemble is configured)")]
pub(crate) struct FusionArgs {
    /// How the members' answers become one
    #[arg(long, value_enum)]
    pub(crate) rule: Option<RuleName>,
    /// Threshold of threshold_vote, in [0, 1)
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f64>,
    /// A member's weight; once for each member, for all of them or for none
    #[arg(long = "weight", value_name = "NAME=W", value_parser = parse_weight)]
    pub(crate) weights: Vec<(String, f64)>,
}

/// A rule by its name in documents, configs and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RuleName {
    /// The arithmetic mixture of the members' distributions
    #[value(alias = "weighted-average")]
    WeightedAverage,
    /// Each member votes for the tokens above the threshold
    #[value(alias = "threshold-vote")]
    ThresholdVote,
    /// The geometric mixture
    #[value(alias = "log-linear")]
    LogLinear,
    /// Softmax of the mean of the logits
    #[value(alias = "logit-mean")]
    LogitMean,
    /// Softmax of the maximum of the logits
    #[value(alias = "logit-max")]
    LogitMax,
}

impl From<RuleName> for Rule {
    fn from(name: RuleName) -> Self {
        match name {
            RuleName::WeightedAverage => Self::WeightedAverage,
            RuleName::ThresholdVote => Self::ThresholdVote,
            RuleName::LogLinear => Self::LogLinear,
            RuleName::LogitMean => Self::LogitMean,
            RuleName::LogitMax => Self::LogitMax,
        }
    }
}

impl FusionArgs {
    /// The options as they go over the wire; nothing where nothing was given.
    ///
    /// # Errors
    /// A member was given two weights.
    pub(crate) fn options(&self) -> Result<Option<FusionOptions>, UsageError> {
        if self.rule.is_none() && self.threshold.is_none() && self.weights.is_empty() {
            return Ok(None);
        }
        let mut weights = HashMap::new();
        for (name, weight) in &self.weights {
            if weights.insert(name.clone(), *weight).is_some() {
                return Err(UsageError(format!("--weight names the member {name:?} twice")));
            }
        }
        Ok(Some(FusionOptions {
            rule: self.rule.map_or(Rule::Unspecified, Rule::from).into(),
            threshold: self.threshold,
            weights,
        }))
    }
}

/// Reads `name=w`. Which numbers are allowed is the server's to say.
fn parse_weight(text: &str) -> Result<(String, f64), String> {
    let (name, weight) = text
        .rsplit_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=W, for example alto=2")?;
    let weight = weight
        .parse()
        .map_err(|_| format!("the weight {weight:?} is not a number"))?;
    Ok((name.to_owned(), weight))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_weight_is_a_name_and_a_number() {
        for (given, parsed) in [
            ("alto=2", Some(("alto", 2.0))),
            ("alto=0.25", Some(("alto", 0.25))),
            ("a=b=1e3", Some(("a=b", 1000.0))),
            // The server's sentence about the range is better than ours could be.
            ("alto=-1", Some(("alto", -1.0))),
            ("alto=inf", Some(("alto", f64::INFINITY))),
            ("alto", None),
            ("alto=", None),
            ("=1", None),
            ("alto=two", None),
        ] {
            let expected = parsed.map(|(name, weight)| (name.to_owned(), weight));
            assert_eq!(parse_weight(given).ok(), expected, "{given:?}");
        }
        assert!(parse_weight("alto=NaN").unwrap().1.is_nan());
    }

    #[test]
    fn nothing_given_leaves_the_configured_fusion_alone() {
        assert!(FusionArgs::default().options().unwrap().is_none());
    }

    #[test]
    fn a_member_with_two_weights_is_refused() {
        let arguments = FusionArgs {
            weights: vec![("alto".into(), 1.0), ("alto".into(), 2.0)],
            ..FusionArgs::default()
        };
        let error = arguments.options().unwrap_err();
        assert_eq!(error.to_string(), "--weight names the member \"alto\" twice");
    }

    #[test]
    fn every_rule_of_the_wire_has_its_name_here() {
        let named: Vec<Rule> = RuleName::value_variants()
            .iter()
            .map(|name| Rule::from(*name))
            .collect();
        let on_the_wire: Vec<Rule> = (1..).map_while(|number| Rule::try_from(number).ok()).collect();
        assert_eq!(named, on_the_wire);
    }
}
