//! [`Learned`]: learned weights as an ensemble uses them, by the places of its members. Knows nothing about files.

use std::collections::HashMap;
use std::sync::Arc;

use chorus_proto::v1::{Expectation, ModelCard};

use super::file::{LearnedRule, LearnedSet, LearnedWeights};
use super::{Weights, shares};
use crate::fusion::Rule;

/// Learned weights of an ensemble's members, for every rule for which there are some.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    vocabulary: String,
    /// Name and model of each member, in member order.
    models: Vec<(String, String)>,
    rules: HashMap<Rule, Arc<RuleSets>>,
}

/// What was learned for one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSets {
    /// θ, of a vote.
    pub(crate) threshold: Option<f64>,
    /// Tokens of the text that it was learned on.
    pub(crate) tokens: u64,
    /// Of all members.
    whole: SetWeights,
    /// By the places of the members, ascending.
    sets: HashMap<Box<[usize]>, SetWeights>,
}

#[derive(Clone, Debug, PartialEq)]
struct SetWeights {
    /// For every member; 0 of those that are not in the set.
    weights: Weights,
    perplexity: Option<f64>,
    /// Of a vote.
    accuracy: Option<f64>,
}

/// Why learned weights are not those of an ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A member of which nothing is known.
    #[error("they know nothing of member {member:?}; allowed: weights learned with all of the ensemble's members (these: {})", .known.join(", "))]
    Member {
        /// The ensemble's member.
        member: String,
        /// Whose weights they are.
        known: Vec<String>,
    },
    /// Too few sets for the members that are left.
    #[error("they have no set of exactly {}, the ensemble's members; allowed: weights learned with these", .members.join("+"))]
    Set {
        /// The ensemble's members.
        members: Vec<String>,
    },
    /// Other tokens.
    #[error(
        "they were learned with the vocabulary {theirs:?}, but that of the ensemble is {ours}; allowed: weights learned with this ensemble"
    )]
    Vocabulary {
        /// The file's fingerprint.
        theirs: String,
        /// The ensemble's.
        ours: String,
    },
    /// Another model under the same name.
    #[error(
        "they were learned when member {member:?} was the model {theirs:?}, but it hosts {ours}; allowed: weights learned with this ensemble"
    )]
    Model {
        /// Which member.
        member: String,
        /// The file's fingerprint.
        theirs: String,
        /// What the member hosts.
        ours: String,
    },
}

impl Learned {
    /// For an ensemble of these members, in this order; more may be in the file.
    ///
    /// # Errors
    /// It says nothing of a member, or has no set of all of them.
    pub fn new(file: &LearnedWeights, names: &[String]) -> Result<Self, Mismatch> {
        let model = |name: &String| {
            let member = file.members.iter().find(|member| member.name == *name);
            let known = || file.names().into_iter().map(|name| name.escape_debug().to_string()).collect();
            let member = member.ok_or_else(|| Mismatch::Member { member: name.clone(), known: known() })?;
            Ok((name.clone(), member.model.clone()))
        };
        let models = names.iter().map(model).collect::<Result<_, Mismatch>>()?;
        let rules = file.rules.iter().map(|(rule, learned)| {
            let sets = RuleSets::new(learned, names);
            let sets = sets.ok_or_else(|| Mismatch::Set { members: names.to_vec() })?;
            Ok((*rule, Arc::new(sets)))
        });
        let rules = rules.collect::<Result<_, Mismatch>>()?;
        Ok(Self { vocabulary: file.vocabulary.clone(), models, rules })
    }

    /// What was learned for a rule.
    pub fn rule(&self, rule: Rule) -> Option<&Arc<RuleSets>> {
        self.rules.get(&rule)
    }

    /// The rules for which something was learned, in the order of the protocol.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        Rule::ALL.into_iter().filter(|rule| self.rules.contains_key(rule))
    }

    /// Whether they are those of members with these cards, as far as these are known.
    ///
    /// # Errors
    /// The first card of another vocabulary or model.
    pub fn check<'a>(&self, cards: impl IntoIterator<Item = Option<&'a ModelCard>>) -> Result<(), Mismatch> {
        for ((member, theirs), card) in self.models.iter().zip(cards) {
            let Some(card) = card else {
                continue;
            };
            if card.vocabulary_fingerprint != self.vocabulary {
                let ours = card.vocabulary_fingerprint.clone();
                return Err(Mismatch::Vocabulary { theirs: self.vocabulary.clone(), ours });
            }
            if card.model_fingerprint != *theirs {
                let (member, theirs) = (member.clone(), theirs.clone());
                return Err(Mismatch::Model { member, theirs, ours: card.model_fingerprint.clone() });
            }
        }
        Ok(())
    }
}

impl RuleSets {
    /// `None` where there is no set of all of these.
    fn new(learned: &LearnedRule, names: &[String]) -> Option<Self> {
        let mut sets = HashMap::new();
        for set in &learned.sets {
            if let Some((members, weights)) = SetWeights::new(set, names) {
                sets.insert(members, weights);
            }
        }
        let whole: Box<[usize]> = (0..names.len()).collect();
        let whole = sets.get(&whole)?.clone();
        Some(Self { threshold: learned.threshold, tokens: learned.tokens, whole, sets })
    }

    /// Of all members.
    pub fn whole(&self) -> &Weights {
        &self.whole.weights
    }

    /// Of these members, whose places are ascending. Where they were not learned together, their shares of the weights of all;
    /// `None` where these are nothing.
    pub fn among(&self, participants: &[usize]) -> Option<&Weights> {
        let learned = self.sets.get(participants).map(|set| &set.weights);
        learned.or_else(|| {
            let whole = &self.whole.weights;
            shares(&whole.of_all(participants)).is_some().then_some(whole)
        })
    }

    /// What is expected of these members, and of all; `None` where that is not known.
    pub fn expectation(&self, participants: &[usize]) -> Option<Expectation> {
        let (set, whole) = (self.sets.get(participants)?, &self.whole);
        let (perplexity, perplexity_of_all) = set.perplexity.zip(whole.perplexity).unzip();
        let (accuracy, accuracy_of_all) = set.accuracy.zip(whole.accuracy).unzip();
        let is_known = perplexity.or(accuracy).is_some();
        is_known.then_some(Expectation { perplexity, perplexity_of_all, accuracy, accuracy_of_all })
    }
}

impl SetWeights {
    /// With the members' places; `None` where one of them is not in the ensemble.
    fn new(set: &LearnedSet, names: &[String]) -> Option<(Box<[usize]>, Self)> {
        let place = |name: &String| names.iter().position(|other| other == name);
        let places = set.members.iter().map(place).collect::<Option<Vec<usize>>>()?;
        let mut by_member = vec![0.0; names.len()];
        for (place, weight) in places.iter().zip(&set.weights) {
            *by_member.get_mut(*place)? = *weight;
        }
        let weights = Weights::new(names.iter().map(String::as_str).zip(by_member)).ok()?;
        let mut places = places;
        places.sort_unstable();
        Some((places.into(), Self { weights, perplexity: set.perplexity, accuracy: set.accuracy }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn file() -> LearnedWeights {
        let text = "format = 1\nvocabulary = 'v'\n\
                    members = [{name = 'alto', model = 'a'}, {name = 'bass', model = 'b'}, {name = 'cello', model = 'c'}]\n\
                    [rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [\n\
                    {members = ['alto', 'bass', 'cello'], weights = [0.6, 0.4, 0.0], perplexity = 4.0},\n\
                    {members = ['cello', 'alto'], weights = [0.25, 0.75], perplexity = 5.0},\n\
                    {members = ['alto'], weights = [1.0], perplexity = 6.0}]";
        LearnedWeights::from_toml(text).unwrap()
    }

    fn expected(perplexity: f64, of_all: f64) -> Option<Expectation> {
        let (perplexity, perplexity_of_all) = (Some(perplexity), Some(of_all));
        Some(Expectation { perplexity, perplexity_of_all, ..Expectation::default() })
    }

    #[test]
    fn a_vote_expects_an_accuracy() {
        let text = "format = 1\nvocabulary = 'v'\n\
                    members = [{name = 'alto', model = 'a'}, {name = 'bass', model = 'b'}]\n\
                    [rules.threshold_vote]\nmethod = 'thresholds by accuracy'\ntokens = 7\nthreshold = 0.3\nsets = [\n\
                    {members = ['alto', 'bass'], weights = [0.5, 0.5], accuracy = 0.4},\n\
                    {members = ['bass'], weights = [1.0]},\n\
                    {members = ['alto'], weights = [1.0], accuracy = 0.25}]";
        let file = LearnedWeights::from_toml(text).unwrap();
        let learned = Learned::new(&file, &names(&["alto", "bass"])).unwrap();
        let sets = learned.rule(Rule::ThresholdVote).unwrap();
        let (accuracy, accuracy_of_all) = (Some(0.25), Some(0.4));
        let expected = Expectation { accuracy, accuracy_of_all, ..Expectation::default() };
        assert_eq!(sets.expectation(&[0]), Some(expected));
        assert_eq!(sets.expectation(&[1]), None);
    }

    #[test]
    fn every_set_has_its_own_weights_whatever_the_order_of_the_file() {
        let learned = Learned::new(&file(), &names(&["cello", "bass", "alto"])).unwrap();
        let sets = learned.rule(Rule::WeightedAverage).unwrap();
        assert_eq!(sets.whole().as_slice(), [0.0, 0.4, 0.6]);
        assert_eq!(sets.among(&[0, 2]).unwrap().as_slice(), [0.25, 0.0, 0.75]);
        // Two that were not learned together share what they have of the whole; one that has nothing of it has none.
        assert_eq!(sets.among(&[1, 2]).unwrap().as_slice(), [0.0, 0.4, 0.6]);
        assert_eq!(sets.among(&[0]), None);
        assert_eq!(sets.expectation(&[0, 2]), expected(5.0, 4.0));
        assert_eq!(sets.expectation(&[1, 2]), None);
        assert_eq!(learned.rule(Rule::LogLinear), None);
        assert_eq!(learned.rules().collect::<Vec<_>>(), [Rule::WeightedAverage]);
    }

    #[test]
    fn fewer_members_are_a_set_and_other_members_are_another_ensemble() {
        let learned = Learned::new(&file(), &names(&["alto", "cello"])).unwrap();
        let sets = learned.rule(Rule::WeightedAverage).unwrap();
        assert_eq!(sets.whole().as_slice(), [0.75, 0.25]);
        assert_eq!(sets.expectation(&[0]), expected(6.0, 5.0));
        let error = Learned::new(&file(), &names(&["alto", "tuba"])).unwrap_err().to_string();
        assert!(
            error.starts_with("they know nothing of member \"tuba\"; allowed: weights learned with"),
            "{error}"
        );
        assert!(error.ends_with("(these: alto, bass, cello)"), "{error}");
        let error = Learned::new(&file(), &names(&["alto", "bass"])).unwrap_err().to_string();
        assert!(error.starts_with("they have no set of exactly alto+bass"), "{error}");
    }

    #[test]
    fn another_model_or_vocabulary_is_another_ensemble_as_soon_as_it_is_seen() {
        let learned = Learned::new(&file(), &names(&["alto", "bass", "cello"])).unwrap();
        let card = |vocabulary: &str, model: &str| ModelCard {
            vocabulary_fingerprint: vocabulary.to_owned(),
            model_fingerprint: model.to_owned(),
            ..ModelCard::default()
        };
        let (alto, bass) = (card("v", "a"), card("v", "b"));
        assert_eq!(learned.check([Some(&alto), None, None]), Ok(()));
        assert_eq!(learned.check([Some(&alto), Some(&bass), None]), Ok(()));
        let error = learned.check([Some(&alto), Some(&alto), None]).unwrap_err().to_string();
        assert!(
            error.starts_with("they were learned when member \"bass\" was the model \"b\", but it hosts a"),
            "{error}"
        );
        let error = learned.check([Some(&card("w", "a")), None, None]).unwrap_err().to_string();
        assert!(
            error.starts_with("they were learned with the vocabulary \"v\", but that of the ensemble is w"),
            "{error}"
        );
    }
}
