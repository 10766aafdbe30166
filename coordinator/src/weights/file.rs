//! [`LearnedWeights`]: what a `weights.toml` says. Read, checked by itself, and written; knows nothing about the ensemble that is
//! to use it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Weights, WeightsError};
use crate::fusion::{Fusion, Rule};

/// The version of the format that is written and read.
const FORMAT: u32 = 1;

/// The opening words of a file.
const HEAD: &str = "# The weights of an ensemble, learned by `chorus tune`: for every set of members that may take part in an answer.\n\
                    # Used by `chorus coordinator --weights FILE`, or `weights = \"FILE\"` in its configuration.\n\n";

/// Weights for every set of members, learned on a held-out text, and whose they are.
///
/// ```
/// use chorus_coordinator::weights::LearnedWeights;
///
/// let learned = LearnedWeights::from_toml(
///     r#"
///     format = 1
///     vocabulary = "sha256:1"
///     members = [{ name = "alto", model = "sha256:2" }, { name = "bass", model = "sha256:3" }]
///
///     [rules.weighted_average]
///     method = "em"
///     tokens = 29878
///     sets = [
///         { members = ["alto", "bass"], weights = [0.7, 0.3], perplexity = 17.1 },
///         { members = ["alto"], weights = [1.0], perplexity = 17.9 },
///         { members = ["bass"], weights = [1.0], perplexity = 18.0 },
///     ]
///     "#,
/// )?;
/// assert_eq!(LearnedWeights::from_toml(&learned.to_toml()?)?, learned);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedWeights {
    /// The version of the format.
    pub format: u32,
    /// The fingerprint of the members' vocabulary.
    pub vocabulary: String,
    /// The members, in the order in which their weights stand below.
    pub members: Vec<LearnedMember>,
    /// What was learned, by the rule for which it holds.
    pub rules: BTreeMap<Rule, LearnedRule>,
}

/// Whose weights they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedMember {
    /// The member's name.
    pub name: String,
    /// The fingerprint of the model that it hosted: of another model other weights would be the best.
    pub model: String,
}

/// What was learned for one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedRule {
    /// How: for people.
    pub method: String,
    /// Tokens of the text that they were learned on.
    pub tokens: u64,
    /// θ, of `threshold_vote` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The sets, that of all members among them.
    pub sets: Vec<LearnedSet>,
}

/// The weights of the members that take part together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedSet {
    /// Who takes part.
    pub members: Vec<String>,
    /// One weight for each of them.
    pub weights: Vec<f64>,
    /// Of the text, by them: at least 1. Not of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// The share of the text's tokens that is the winner; of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// Why a text is no file of learned weights.
#[derive(Debug, thiserror::Error)]
pub enum LearnedWeightsError {
    /// Not TOML, a key that is unknown or missing, or a value of another kind. The source says in which line.
    #[error("it can't be read")]
    Toml(#[from] toml::de::Error),
    /// It can't be written as TOML; never for what was read.
    #[error("it can't be written")]
    Unwritable(#[from] toml::ser::Error),
    /// Of another version.
    #[error("format: {0} is not known; allowed: {FORMAT}")]
    Format(u32),
    /// Nobody's weights.
    #[error("members: there are none; allowed: at least one")]
    NoMembers,
    /// A name that is there twice.
    #[error("members: {0:?} is there twice; allowed: every name once")]
    DuplicateMember(String),
    /// A set that can't be one.
    #[error("rules.{rule}: the set {:?}: {problem}", set.join("+"))]
    Set {
        /// Of which rule.
        rule: Rule,
        /// Who is in it.
        set: Vec<String>,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// Weights that can't be.
    #[error("rules.{rule}: the set {:?}", set.join("+"))]
    Weights {
        /// Of which rule.
        rule: Rule,
        /// Who is in it.
        set: Vec<String>,
        /// What is wrong, and what is allowed.
        source: WeightsError,
    },
    /// The most important set is missing.
    #[error(
        "rules.{0}: there are no weights of all members together; allowed: sets with that of all members among them"
    )]
    NoWhole(Rule),
    /// A rule for which nothing can be learned.
    #[error("rules.{0}: it uses no weights; allowed: weighted_average, threshold_vote, log_linear")]
    WithoutWeights(Rule),
    /// θ out of its range, or of a rule that has none.
    #[error(
        "rules.{rule}.threshold: {threshold} is not allowed; allowed: at least 0 and less than 1, of threshold_vote only"
    )]
    Threshold {
        /// Of which rule.
        rule: Rule,
        /// As given.
        threshold: f64,
    },
}

impl LearnedWeights {
    /// Nothing learned yet, for these members.
    pub fn new(vocabulary: String, members: Vec<LearnedMember>) -> Self {
        Self { format: FORMAT, vocabulary, members, rules: BTreeMap::new() }
    }

    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// The first thing that is wrong: its key, what was given, what is allowed.
    pub fn from_toml(text: &str) -> Result<Self, LearnedWeightsError> {
        let learned: Self = toml::from_str(text)?;
        learned.check()?;
        Ok(learned)
    }

    /// The file's text, checked before.
    ///
    /// # Errors
    /// As [`LearnedWeights::from_toml`].
    pub fn to_toml(&self) -> Result<String, LearnedWeightsError> {
        self.check()?;
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// The members' names, in the file's order.
    pub fn names(&self) -> Vec<&str> {
        self.members.iter().map(|member| member.name.as_str()).collect()
    }

    fn check(&self) -> Result<(), LearnedWeightsError> {
        if self.format != FORMAT {
            return Err(LearnedWeightsError::Format(self.format));
        }
        let mut names = BTreeSet::new();
        for member in &self.members {
            if !names.insert(member.name.as_str()) {
                return Err(LearnedWeightsError::DuplicateMember(member.name.clone()));
            }
        }
        if names.is_empty() {
            return Err(LearnedWeightsError::NoMembers);
        }
        self.rules.iter().try_for_each(|(rule, learned)| learned.check(*rule, &names))
    }
}

impl LearnedRule {
    fn check(&self, rule: Rule, names: &BTreeSet<&str>) -> Result<(), LearnedWeightsError> {
        if !rule.uses_weights() {
            return Err(LearnedWeightsError::WithoutWeights(rule));
        }
        let is_vote = rule == Rule::ThresholdVote;
        match self.threshold {
            Some(threshold) if !is_vote || !Fusion::threshold_is_valid(threshold) => {
                return Err(LearnedWeightsError::Threshold { rule, threshold });
            }
            _ => {}
        }
        let mut known = BTreeSet::new();
        for set in &self.sets {
            let members = set.check(rule, names)?;
            if !known.insert(members) {
                return Err(set.error(rule, "it is there twice; allowed: every set once"));
            }
        }
        if known.contains(names) { Ok(()) } else { Err(LearnedWeightsError::NoWhole(rule)) }
    }
}

impl LearnedSet {
    fn check(&self, rule: Rule, names: &BTreeSet<&str>) -> Result<BTreeSet<&str>, LearnedWeightsError> {
        let members: BTreeSet<&str> = self.members.iter().map(String::as_str).collect();
        if members.len() != self.members.len() || members.is_empty() {
            return Err(self.error(rule, "it has a member twice, or none; allowed: at least one, each once"));
        }
        if !members.is_subset(names) {
            return Err(self.error(rule, "not all of them are in the list of members; allowed: only such"));
        }
        if self.weights.len() != self.members.len() {
            let found = self.weights.len();
            return Err(self.error(rule, &format!("it has {found} weights; allowed: one for each member")));
        }
        let weights = self.members.iter().map(String::as_str).zip(self.weights.iter().copied());
        Weights::new(weights).map_err(|source| LearnedWeightsError::Weights {
            rule,
            set: self.members.clone(),
            source,
        })?;
        if let Some(perplexity) = self.perplexity.filter(|value| !(value.is_finite() && *value >= 1.0)) {
            let problem = format!("its perplexity is {perplexity}; allowed: a finite number of at least 1");
            return Err(self.error(rule, &problem));
        }
        if let Some(accuracy) = self.accuracy.filter(|value| !(0.0..=1.0).contains(value)) {
            return Err(self.error(rule, &format!("its accuracy is {accuracy}; allowed: 0 to 1")));
        }
        Ok(members)
    }

    fn error(&self, rule: Rule, problem: &str) -> LearnedWeightsError {
        LearnedWeightsError::Set { rule, set: self.members.clone(), problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(members: &str, rules: &str) -> Result<LearnedWeights, String> {
        let text = format!("format = 1\nvocabulary = 'v'\nmembers = [{members}]\n{rules}");
        LearnedWeights::from_toml(&text).map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }

    fn of_sets(sets: &str) -> Result<LearnedWeights, String> {
        let two = "{name = 'alto', model = 'a'}, {name = 'bass', model = 'b'}";
        file(two, &format!("[rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [{sets}]"))
    }

    #[test]
    fn a_file_without_the_whole_set_or_with_a_wrong_one_is_refused() {
        let whole = "{members = ['alto', 'bass'], weights = [1.0, 2.0]}";
        assert!(of_sets(whole).is_ok());
        let odd = of_sets("{members = ['al\\to'], weights = [1.0]}").unwrap_err();
        assert!(odd.contains("the set \"al\\\\to\""), "{odd}");
        for (sets, problem) in [
            ("", "rules.weighted_average: there are no weights of all members together"),
            (
                "{members = ['alto', 'bass'], weights = [1.0]}",
                "the set \"alto+bass\": it has 1 weights; allowed: one for each",
            ),
            (
                "{members = ['alto', 'tuba'], weights = [1.0, 1.0]}",
                "the set \"alto+tuba\": not all of them are in the list",
            ),
            (
                "{members = ['alto', 'alto'], weights = [1.0, 1.0]}",
                "the set \"alto+alto\": it has a member twice, or none",
            ),
            ("{members = [], weights = []}", "the set \"\": it has a member twice, or none"),
            (
                "{members = ['alto', 'bass'], weights = [1.0, nan]}",
                "the set \"alto+bass\": the weight of member \"bass\" is NaN",
            ),
            (
                "{members = ['alto', 'bass'], weights = [0.0, 0.0]}",
                "the set \"alto+bass\": every weight is 0",
            ),
            (
                "{members = ['alto', 'bass'], weights = [1, 1], perplexity = 0.5}",
                "its perplexity is 0.5; allowed: a finite",
            ),
            (
                "{members = ['alto', 'bass'], weights = [1, 1], accuracy = 1.5}",
                "its accuracy is 1.5; allowed: 0 to 1",
            ),
            ("{members = ['alto', 'bass'], weights = [1, 1], colour = 1}", "it can't be read: "),
        ] {
            let error = of_sets(sets).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let error =
            of_sets(&format!("{whole}, {{members = ['bass', 'alto'], weights = [1, 1]}}")).unwrap_err();
        assert!(error.contains("the set \"bass+alto\": it is there twice"), "{error}");
    }

    #[test]
    fn so_is_one_of_nobody_or_of_a_rule_without_weights() {
        let alto = "{name = 'alto', model = 'a'}";
        let rule = |name: &str, more: &str| {
            format!(
                "[rules.{name}]\nmethod = 'em'\ntokens = 7\nsets = [{{members = ['alto'], weights = [1.0]}}]\n{more}"
            )
        };
        for (members, rules, problem) in [
            ("", "rules = {}".to_owned(), "members: there are none"),
            (&*format!("{alto}, {alto}"), "rules = {}".to_owned(), "members: \"alto\" is there twice"),
            (alto, rule("logit_max", ""), "rules.logit_max: it uses no weights; allowed: weighted_average, "),
            (alto, rule("average", ""), "it can't be read"),
            (
                alto,
                rule("threshold_vote", "threshold = 1.0"),
                "rules.threshold_vote.threshold: 1 is not allowed",
            ),
            (alto, rule("log_linear", "threshold = 0.5"), "rules.log_linear.threshold: 0.5 is not allowed"),
        ] {
            let error = file(members, &rules).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        assert!(file(alto, &rule("threshold_vote", "threshold = 0.5")).is_ok());
        let other =
            LearnedWeights::from_toml("format = 2\nvocabulary = ''\nmembers = []\nrules = {}").unwrap_err();
        assert_eq!(other.to_string(), "format: 2 is not known; allowed: 1");
    }
}
