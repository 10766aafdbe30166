//! Options that change the ensemble's fusion for one request. Knows nothing about what the rules do.

use std::collections::HashMap;

use chorus_coordinator::fusion::Rule;
use chorus_proto::v1;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{failure::UsageError, values::number};

/// Fusion options, the same for every client command.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Fusion (default: as the ensemble is configured)")]
pub(crate) struct FusionArgs {
    /// How the members' answers become one
    #[arg(long, value_parser = rule_parser())]
    rule: Option<Rule>,
    /// Threshold of threshold_vote, in [0, 1)
    #[arg(long, value_name = "T", value_parser = number, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// A member's weight; once for each member, for all of them or for none
    #[arg(long = "weight", value_name = "NAME=W", value_parser = parse_weight)]
    weights: Vec<(String, f64)>,
    /// Only this member answers; can be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Fetch whole rows from every member even where less makes the same answer
    #[arg(long)]
    whole_rows: bool,
    /// How logits travel where whole rows do: in 2 bytes answers are a little off
    #[arg(long, value_name = "FORMAT", value_parser = row_format_parser())]
    row_format: Option<v1::RowFormat>,
    /// Weights that follow the text, by what it has shown of the members so far (weighted_average only)
    #[arg(long)]
    adaptive: bool,
    /// With --adaptive, how much of what was shown is kept from token to token, in (0, 1] (default: 0.8)
    #[arg(long, value_name = "F", value_parser = number, allow_negative_numbers = true)]
    forgetting: Option<f64>,
    /// Fail rather than answer without one of the members
    #[arg(long)]
    require_all: bool,
}

/// Reads a row format's name.
fn row_format_parser() -> impl TypedValueParser<Value = v1::RowFormat> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).map(|name| match name.as_str() {
        "f16" => v1::RowFormat::F16,
        "bf16" => v1::RowFormat::Bf16,
        _ => v1::RowFormat::F32,
    })
}

/// Reads a rule's name. The names are the coordinator's.
pub(crate) fn rule_parser() -> impl TypedValueParser<Value = Rule> {
    PossibleValuesParser::new(Rule::ALL.map(Rule::name)).try_map(|name| name.parse::<Rule>())
}

impl FusionArgs {
    /// The options as they go over the wire; nothing where nothing was given.
    ///
    /// # Errors
    /// A member was given two weights.
    pub(crate) fn options(&self) -> Result<Option<v1::FusionOptions>, UsageError> {
        let Self { rule, threshold, weights: given, .. } = self;
        let mut weights = HashMap::new();
        for (name, weight) in given {
            if weights.insert(name.clone(), *weight).is_some() {
                return Err(UsageError(format!("--weight names the member {name:?} twice")));
            }
        }
        let options = v1::FusionOptions {
            rule: rule.map_or(v1::Rule::Unspecified, v1::Rule::from).into(),
            threshold: *threshold,
            weights,
            whole_rows: self.whole_rows,
            row_format: self.row_format.unwrap_or_default().into(),
            allow_degraded: self.require_all.then_some(false),
            adaptive: self.adaptive,
            forgetting: self.forgetting,
            members: self.only.clone(),
        };
        Ok((options != v1::FusionOptions::default()).then_some(options))
    }
}

/// Reads `name=w`. Which numbers are allowed is the server's to say.
pub(super) fn parse_weight(text: &str) -> Result<(String, f64), String> {
    let (name, weight) = text
        .rsplit_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=W, for example alto=2")?;
    let weight = weight.parse().map_err(|_| format!("the weight {weight:?} is not a number"))?;
    Ok((name.to_owned(), weight))
}

#[cfg(test)]
mod tests {
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
        let arguments =
            FusionArgs { weights: vec![("alto".into(), 1.0), ("alto".into(), 2.0)], ..FusionArgs::default() };
        let error = arguments.options().unwrap_err();
        assert_eq!(error.to_string(), "--weight names the member \"alto\" twice");
    }
}
