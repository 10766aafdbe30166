//! The command line of `chorus tune`. Reads no file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use chorus_coordinator::fusion::{Fusion, Rule};
use chorus_tune::{BayesOptions, EmOptions, GradientOptions, Method};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::client::ConnectArgs;
use crate::failure::UsageError;
use crate::learn::CollectArgs;
use crate::values::{number, seed};

const EXAMPLES: &str = "\
Examples:
  chorus tune valid.txt
  chorus tune valid.txt --method cv --folds 10
  chorus tune valid.txt --rule log_linear
  chorus tune valid.txt --rule threshold_vote --vote-weights
  chorus tune valid.txt --json | jq .weights

The text goes through the running ensemble, which says one number a token and
member (for log_linear: whole distributions; for threshold_vote: the likeliest
tokens). It is kept in --cache, so that another method or a run that was
stopped asks nothing twice. Then the weights are learned:
  em        expectation-maximisation: the optimum, never downhill (default)
  gradient  L-BFGS on softmax-parametrised weights (default of log_linear)
  bayes     Bayesian optimisation: few evaluations, near the optimum
  cv        one of these (--fold-method) in --folds parts of the text, each
            tested on the part that it has not seen, with the spread of each
            weight; what is written is learned on all of the text
For threshold_vote the threshold is chosen by how often the winner is the token
that came, and with --vote-weights weights that decide between equal votes.

--out has weights for every set of members that may be left when others are
lost (all sets up to 8 members; then all members, and all but one or two). What
was learned for other rules stays in it. A file of another ensemble is refused.

With --json one object with the keys
  rule, method, tokens, file
  weights     a map by member
  perplexity  {members {}, equal, learned}; not of a vote
  duality_gap how far from the optimum at most, in nats a token; not of a vote
  sets        [{members, weights, perplexity or accuracy}]
  folds       with cv: [{held_out [first, end], weights {}, perplexity,
              equal_perplexity}]; spread {} by member, perplexity,
              equal_perplexity of all held-out tokens
  threshold   of a vote: threshold, accuracy, by_weighted_average and curve
              [{threshold, accuracy, by_weighted_average}]; equal_accuracy
  values      {} by member: leave_one_out, perplexity_without, shapley";

/// Learn weights (or a threshold) for the running ensemble from a held-out text
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    /// The rule to learn for
    #[arg(long, value_parser = rule_parser(), default_value = "weighted_average", help_heading = "Learning")]
    pub(crate) rule: Rule,
    /// How: em, gradient, bayes or cv (default: em; gradient for log_linear)
    #[arg(long, value_enum, help_heading = "Learning")]
    method: Option<MethodName>,
    /// Parts of the text for cv, at least 2
    #[arg(long, value_name = "K", default_value_t = 5, help_heading = "Learning")]
    pub(crate) folds: usize,
    /// What cv does in each of them (default: em; gradient for log_linear)
    #[arg(long, value_enum, help_heading = "Learning")]
    fold_method: Option<FoldMethod>,
    /// Evaluations of bayes
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(80).unwrap_or(NonZeroUsize::MIN), help_heading = "Learning")]
    evaluations: NonZeroUsize,
    /// What bayes draws from: the same seed gives the same weights
    #[arg(long, value_name = "S", value_parser = seed, default_value_t = 0, help_heading = "Learning")]
    seed: u64,
    /// Thresholds of threshold_vote to choose from (default: 0.01 to 0.95)
    #[arg(long, value_name = "T,T...", value_parser = number, value_delimiter = ',', help_heading = "Learning")]
    thresholds: Vec<f64>,
    /// Learn the weights that decide between equal votes, too (threshold_vote)
    #[arg(long, help_heading = "Learning")]
    pub(crate) vote_weights: bool,
    /// The file of weights to write, or to add to
    #[arg(long, value_name = "FILE", default_value = "weights.toml", help_heading = "Files")]
    pub(crate) out: PathBuf,
    /// Write --out anew, even if it is of another ensemble
    #[arg(long, help_heading = "Files")]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodName {
    Em,
    Gradient,
    Bayes,
    Cv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FoldMethod {
    Em,
    Gradient,
    Bayes,
}

/// What was asked for, with its options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Learning {
    pub(crate) method: Method,
    /// In so many parts of the text first.
    pub(crate) folds: Option<usize>,
}

/// The thresholds that are tried where none are named: closer where probabilities are.
const THRESHOLDS: [f64; 24] = [
    0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45,
    0.5, 0.6, 0.7, 0.8, 0.9, 0.95,
];

/// Whoever is listed for no member has less than this, so that a lower threshold might be decided by tokens that nobody knows
/// of.
pub(super) const LEAST_THRESHOLD: f64 = 0.01;

/// The rules that something can be learned for.
fn rule_parser() -> impl TypedValueParser<Value = Rule> {
    let rules = Rule::ALL.into_iter().filter(|rule| rule.uses_weights()).map(Rule::name);
    PossibleValuesParser::new(rules.collect::<Vec<_>>()).try_map(|name| name.parse::<Rule>())
}

impl TuneArgs {
    /// How to learn.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub(super) fn method(&self) -> Result<Learning, UsageError> {
        let is_vote = self.rule == Rule::ThresholdVote;
        if is_vote && self.method.is_some() {
            return Err(UsageError(
                "threshold_vote takes no --method: its threshold is chosen among --thresholds".to_owned(),
            ));
        }
        if !is_vote && (self.vote_weights || !self.thresholds.is_empty()) {
            return Err(UsageError(
                "--thresholds and --vote-weights are for --rule threshold_vote".to_owned(),
            ));
        }
        if self.method != Some(MethodName::Cv) && self.fold_method.is_some() {
            return Err(UsageError("--fold-method is for --method cv".to_owned()));
        }
        let usual = if self.rule == Rule::LogLinear { FoldMethod::Gradient } else { FoldMethod::Em };
        let (name, folds) = match self.method {
            None => (usual, None),
            Some(MethodName::Em) => (FoldMethod::Em, None),
            Some(MethodName::Gradient) => (FoldMethod::Gradient, None),
            Some(MethodName::Bayes) => (FoldMethod::Bayes, None),
            Some(MethodName::Cv) => (self.fold_method.unwrap_or(usual), Some(self.folds)),
        };
        if self.rule == Rule::LogLinear && name == FoldMethod::Em {
            return Err(UsageError(
                "em learns weighted averages; for log_linear --method gradient, bayes or cv are there"
                    .to_owned(),
            ));
        }
        if folds.is_some_and(|folds| folds < 2) {
            return Err(UsageError(format!("--folds is {}; allowed: at least 2", self.folds)));
        }
        let method = match name {
            FoldMethod::Em => Method::Em(EmOptions::default()),
            FoldMethod::Gradient => Method::Gradient(GradientOptions::default()),
            FoldMethod::Bayes => {
                Method::Bayes(BayesOptions { evaluations: self.evaluations.get(), seed: self.seed })
            }
        };
        Ok(Learning { method, folds })
    }

    /// The thresholds to choose from.
    ///
    /// # Errors
    /// One that is none, or lower than the lists of likeliest tokens can decide.
    pub(super) fn thresholds(&self) -> Result<Vec<f64>, UsageError> {
        if self.thresholds.is_empty() {
            return Ok(THRESHOLDS.to_vec());
        }
        let is_wrong =
            |threshold: &&f64| **threshold < LEAST_THRESHOLD || !Fusion::threshold_is_valid(**threshold);
        match self.thresholds.iter().find(is_wrong) {
            Some(wrong) => Err(UsageError(format!(
                "--thresholds has {wrong}; allowed: {LEAST_THRESHOLD} to less than 1"
            ))),
            None => Ok(self.thresholds.clone()),
        }
    }
}

impl Learning {
    /// What the file and the user are told.
    pub(super) fn name(&self) -> String {
        match self.folds {
            Some(folds) => format!("{}, {folds} folds", self.method),
            None => self.method.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: TuneArgs,
    }

    fn arguments(line: &str) -> TuneArgs {
        CommandLine::try_parse_from(std::iter::once("tune").chain(line.split(' '))).unwrap().arguments
    }

    #[test]
    fn every_rule_has_a_method_that_it_takes() {
        for (line, name) in [
            ("a.txt", "em"),
            ("a.txt --rule log_linear", "gradient"),
            ("a.txt --method cv --folds 7", "em, 7 folds"),
            ("a.txt --method cv --fold-method bayes", "bayes, 5 folds"),
            ("a.txt --rule log_linear --method cv", "gradient, 5 folds"),
            ("a.txt --rule threshold_vote", "em"),
        ] {
            assert_eq!(arguments(line).method().unwrap().name(), name, "{line}");
        }
        let method = arguments("a.txt --method bayes --seed 3 --evaluations 9").method().unwrap().method;
        assert_eq!(method, Method::Bayes(BayesOptions { evaluations: 9, seed: 3 }));
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (line, said) in [
            ("a.txt --rule log_linear --method em", "em learns weighted averages"),
            ("a.txt --rule threshold_vote --method em", "takes no --method"),
            ("a.txt --vote-weights", "are for --rule threshold_vote"),
            ("a.txt --thresholds 0.5", "are for --rule threshold_vote"),
            ("a.txt --fold-method em", "is for --method cv"),
            ("a.txt --method cv --folds 1", "--folds is 1; allowed: at least 2"),
        ] {
            let error = arguments(line).method().unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn thresholds_have_a_range() {
        let of =
            |list: &str| arguments(&format!("a.txt --rule threshold_vote --thresholds {list}")).thresholds();
        assert_eq!(of("0.5,0.01").unwrap(), [0.5, 0.01]);
        for wrong in ["0.5,1.0", "0.001", "NaN"] {
            assert!(of(wrong).unwrap_err().to_string().contains("allowed: 0.01 to less than 1"), "{wrong}");
        }
        assert!(arguments("a.txt --rule threshold_vote").thresholds().unwrap().len() > 20);
    }
}
