//! The names of the rules, in Rust, in files and on the wire. Knows nothing about their mathematics.

use std::{fmt, str::FromStr};

use chorus_proto::v1;
use serde::{Deserialize, Serialize};

/// How the members' distributions become one. z_j are the logits of member j, P_j = softmax(z_j), a_j the weights,
/// renormalised over the participants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// P = sum_j a_j P_j, the arithmetic mixture.
    #[default]
    WeightedAverage,
    /// The token that most members give a probability above the threshold: a winner, no distribution.
    ThresholdVote,
    /// P proportional to prod_j P_j^a_j, the geometric mixture.
    LogLinear,
    /// P = softmax(mean_j z_j): `log_linear` with equal weights.
    LogitMean,
    /// P = softmax(max_j z_j).
    LogitMax,
}

/// A rule with the threshold that `threshold_vote` needs (the others ignore it).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fusion {
    /// The rule.
    pub rule: Rule,
    /// A member votes for every token that it gives more than this probability. In [0, 1).
    pub threshold: f64,
}

/// A name that is no rule's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule {name:?}; the rules are {}", Rule::names())]
pub struct UnknownRule {
    /// What was given.
    pub name: String,
}

impl Default for Fusion {
    /// `weighted_average`; a vote takes a tenth.
    fn default() -> Self {
        Self { rule: Rule::default(), threshold: 0.1 }
    }
}

impl Fusion {
    /// Whether a vote can be held with this threshold: finite and in [0, 1).
    pub fn threshold_is_valid(threshold: f64) -> bool {
        (0.0..1.0).contains(&threshold)
    }
}

impl Rule {
    /// Every rule, in the order of the protocol.
    pub const ALL: [Self; 5] =
        [Self::WeightedAverage, Self::ThresholdVote, Self::LogLinear, Self::LogitMean, Self::LogitMax];

    /// The rule's name in files, flags and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::WeightedAverage => "weighted_average",
            Self::ThresholdVote => "threshold_vote",
            Self::LogLinear => "log_linear",
            Self::LogitMean => "logit_mean",
            Self::LogitMax => "logit_max",
        }
    }

    /// Every rule's name, for messages to people.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Whether the members' weights change the result. Under `threshold_vote` they decide between equal votes.
    pub fn uses_weights(self) -> bool {
        match self {
            Self::WeightedAverage | Self::ThresholdVote | Self::LogLinear => true,
            Self::LogitMean | Self::LogitMax => false,
        }
    }

    /// Whether it is about a weighted sum of the members' probabilities; else about scores made of their logits.
    pub fn mixes_probabilities(self) -> bool {
        match self {
            Self::WeightedAverage | Self::ThresholdVote => true,
            Self::LogLinear | Self::LogitMean | Self::LogitMax => false,
        }
    }

    /// Whether the rule yields a distribution, from which one can draw and by which one can score.
    pub fn yields_distribution(self) -> bool {
        self != Self::ThresholdVote
    }

    /// The rule behind the wire's value; `None` where it is unspecified.
    pub fn from_proto(rule: v1::Rule) -> Option<Self> {
        match rule {
            v1::Rule::Unspecified => None,
            v1::Rule::WeightedAverage => Some(Self::WeightedAverage),
            v1::Rule::ThresholdVote => Some(Self::ThresholdVote),
            v1::Rule::LogLinear => Some(Self::LogLinear),
            v1::Rule::LogitMean => Some(Self::LogitMean),
            v1::Rule::LogitMax => Some(Self::LogitMax),
        }
    }
}

impl From<Rule> for v1::Rule {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::WeightedAverage => Self::WeightedAverage,
            Rule::ThresholdVote => Self::ThresholdVote,
            Rule::LogLinear => Self::LogLinear,
            Rule::LogitMean => Self::LogitMean,
            Rule::LogitMax => Self::LogitMax,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, UnknownRule> {
        let found = Self::ALL.into_iter().find(|rule| rule.name() == name);
        found.ok_or_else(|| UnknownRule { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_the_same_name_everywhere() {
        for rule in Rule::ALL {
            assert_eq!(rule.to_string().parse(), Ok(rule));
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
            assert_eq!(Rule::from_proto(rule.into()), Some(rule));
            let wire = v1::Rule::from(rule).as_str_name().to_lowercase();
            assert_eq!(wire.strip_prefix("rule_"), Some(rule.name()));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "averaging".parse::<Rule>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown rule \"averaging\"; the rules are weighted_average, threshold_vote, log_linear, logit_mean, \
             logit_max"
        );
        assert_eq!(Rule::from_proto(v1::Rule::Unspecified), None);
    }
}
