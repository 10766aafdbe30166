//! Learned weights in a configuration. Knows nothing about files or how the weights are used.

use super::{Config, ConfigError};
use crate::weights::{Learned, LearnedWeights};

impl Config {
    /// Takes the text of the file of learned weights.
    ///
    /// # Errors
    /// It is none, or not that of an ensemble with these members. Whether they host the models of which it speaks is known when
    /// they are reached.
    pub fn learn(&mut self, toml: &str) -> Result<(), ConfigError> {
        let learned = LearnedWeights::from_toml(toml)?;
        Learned::new(&learned, &self.member_names())?;
        self.learned = Some(learned);
        Ok(())
    }

    /// The learned weights by the places of the members.
    pub(crate) fn learned(&self) -> Option<Learned> {
        self.learned_of(&self.member_names())
    }

    /// Those of some members alone, by their places among these; none where they were not learned together.
    pub(crate) fn learned_of(&self, names: &[String]) -> Option<Learned> {
        Learned::new(self.learned.as_ref()?, names).ok()
    }

    /// After a change of the members: weights that were learned without one of them, or that an operator now sets by hand,
    /// are set aside until the file is read again.
    pub(super) fn keep_learned(&mut self, before: &Self) {
        let by_hand = self.members.iter().any(|member| {
            let before = before.members.iter().find(|other| other.name == member.name);
            before.is_some_and(|before| before.weight != member.weight)
        });
        if by_hand || self.learned().is_none() {
            self.learned = None;
        }
    }

    /// What changes with the next configuration, in a sentence, if something does.
    pub(super) fn change_of_learned(&self, next: &Self) -> Option<String> {
        let of = |learned: &LearnedWeights| {
            let rules =
                learned.rules.iter().map(|(rule, learned)| format!("{rule} on {} tokens", learned.tokens));
            rules.collect::<Vec<_>>().join(", ")
        };
        match (&self.learned, &next.learned) {
            (ours, theirs) if ours == theirs => None,
            (Some(_), None) => Some("the learned weights are set aside".to_owned()),
            (_, Some(theirs)) => Some(format!("weights that were learned are in force: {}", of(theirs))),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    const LEARNED: &str = "format = 1\nvocabulary = 'v'\n\
        members = [{name = 'alto', model = 'a'}, {name = 'bass', model = 'b'}]\n\
        [rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [\n\
        {members = ['alto', 'bass'], weights = [0.7, 0.3]}, {members = ['alto'], weights = [1.0]}]";

    fn config(members: &[&str]) -> Config {
        let members = members.iter().map(|flag| flag.parse().unwrap()).collect();
        Config::new(None, Overrides { members, ..Overrides::default() }).unwrap()
    }

    #[test]
    fn they_have_to_be_of_these_members() {
        let mut ours = config(&["alto=http://h:1", "bass=http://h:2"]);
        ours.learn(LEARNED).unwrap();
        assert!(ours.learned().is_some());
        let mut other = config(&["alto=http://h:1", "tuba=http://h:2"]);
        let error = other.learn(LEARNED).unwrap_err();
        assert_eq!(error.to_string(), "weights: the learned weights are of another ensemble");
        let error = ours.learn("format = 1").unwrap_err();
        assert_eq!(error.to_string(), "weights: the learned weights can't be used");
        assert!(ours.learned().is_some(), "what was learned before stays");
    }

    #[test]
    fn a_change_that_they_know_nothing_of_sets_them_aside() {
        let mut ours = config(&["alto=http://h:1", "bass=http://h:2"]);
        ours.learn(LEARNED).unwrap();
        let next = |flags: &[&str]| ours.with_members(config(flags).members, None).unwrap();
        for (flags, kept) in [
            (&["alto=http://h:1"][..], true),
            (&["bass=http://h:2", "alto=http://h:3"], true),
            (&["bass=http://h:2"], false),
            (&["alto=http://h:1", "bass=http://h:2", "tuba=http://h:3"], false),
            (&["alto@2=http://h:1", "bass=http://h:2"], false),
        ] {
            let next = next(flags);
            assert_eq!(next.learned.is_some(), kept, "{flags:?}");
            let aside = ours.changes(&next).contains(&"the learned weights are set aside".to_owned());
            assert_eq!(aside, !kept, "{flags:?}");
        }
        let before = config(&["alto=http://h:1", "bass=http://h:2"]);
        assert_eq!(
            before.changes(&ours),
            ["weights that were learned are in force: weighted_average on 7 tokens"]
        );
    }
}
