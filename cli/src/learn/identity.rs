//! [`Identity`]: whose numbers they are. Two ensembles with the same one say the same of every text.
//!
//! Knows nothing about files or how an ensemble is reached.

use anyhow::{anyhow, bail};
use chorus_coordinator::weights::{LearnedMember, LearnedWeights};
use chorus_proto::v1::StatusReply;
use serde::{Deserialize, Serialize};

/// An ensemble by what it hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The vocabulary's fingerprint.
    pub(crate) vocabulary: String,
    /// In member order.
    pub(crate) members: Vec<MemberIdentity>,
}

/// A member by what it hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberIdentity {
    pub(crate) name: String,
    /// The model's fingerprint.
    pub(crate) model: String,
}

impl Identity {
    /// Of an ensemble that says so of itself.
    ///
    /// # Errors
    /// A member was not reached yet, so that nobody knows what it hosts, or does not say it.
    pub(crate) fn of(status: &StatusReply) -> anyhow::Result<Self> {
        if status.members.is_empty() || status.vocabulary_fingerprint.is_empty() {
            bail!("the ensemble has not reached any member yet");
        }
        let member = |member: &chorus_proto::v1::MemberStatus| {
            if member.model_fingerprint.is_empty() {
                let reason = if member.reason.is_empty() { "it does not say" } else { &member.reason };
                return Err(anyhow!("what member {} hosts is not known: {reason}", member.name));
            }
            Ok(MemberIdentity { name: member.name.clone(), model: member.model_fingerprint.clone() })
        };
        let members = status.members.iter().map(member).collect::<anyhow::Result<_>>()?;
        Ok(Self { vocabulary: status.vocabulary_fingerprint.clone(), members })
    }

    /// Of the ensemble that weights were learned for.
    pub(crate) fn of_weights(weights: &LearnedWeights) -> Self {
        let members = weights.members.iter();
        let members =
            members.map(|member| MemberIdentity { name: member.name.clone(), model: member.model.clone() });
        Self { vocabulary: weights.vocabulary.clone(), members: members.collect() }
    }

    /// The members' names, in member order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// What of this is no longer so in `other`, in a sentence; nothing where all of it is. Members that are new change nothing
    /// of what the others say.
    pub(crate) fn lost_in(&self, other: &Self) -> Option<String> {
        if self.vocabulary != other.vocabulary {
            return Some(format!("its vocabulary is {} and was {}", other.vocabulary, self.vocabulary));
        }
        self.members.iter().find_map(|MemberIdentity { name, model }| {
            match other.members.iter().find(|member| member.name == *name) {
                None => Some(format!("{name} is no member any more")),
                Some(member) if member.model != *model => {
                    Some(format!("{name} hosts the model {} and hosted {model}", member.model))
                }
                Some(_) => None,
            }
        })
    }

    /// What differs, in a sentence; nothing where they are the same.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let is_new = |name: &&String| self.members.iter().all(|member| member.name != **name);
        let names = other.names();
        self.lost_in(other).or_else(|| {
            names.iter().find(is_new).map(|name| format!("{name} is a member and was none")).or_else(|| {
                (self != other).then(|| format!("the order of its members is {}", names.join(", ")))
            })
        })
    }

    /// A file of weights for it, with nothing learned yet.
    pub(crate) fn unlearned(&self) -> LearnedWeights {
        let members = self.members.iter();
        let members =
            members.map(|member| LearnedMember { name: member.name.clone(), model: member.model.clone() });
        LearnedWeights::new(self.vocabulary.clone(), members.collect())
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::MemberStatus;

    use super::*;

    pub(crate) fn identity(vocabulary: &str, members: &[(&str, &str)]) -> Identity {
        let member = |(name, model): &(&str, &str)| MemberIdentity {
            name: (*name).to_owned(),
            model: (*model).to_owned(),
        };
        Identity { vocabulary: vocabulary.to_owned(), members: members.iter().map(member).collect() }
    }

    #[test]
    fn what_is_lost_and_what_differs_is_said() {
        let ours = identity("v", &[("alto", "1"), ("bass", "2")]);
        for (theirs, lost, difference) in [
            (identity("v", &[("alto", "1"), ("bass", "2")]), None, None),
            (identity("w", &[("alto", "1")]), Some("its vocabulary is w and was v"), Some("its vocabulary")),
            (identity("v", &[("alto", "1")]), Some("bass is no member any more"), Some("bass is no member")),
            (
                identity("v", &[("alto", "9"), ("bass", "2")]),
                Some("alto hosts the model 9 and hosted 1"),
                Some("alto hosts"),
            ),
            (
                identity("v", &[("alto", "1"), ("bass", "2"), ("tuba", "3")]),
                None,
                Some("tuba is a member and was none"),
            ),
            (
                identity("v", &[("bass", "2"), ("alto", "1")]),
                None,
                Some("the order of its members is bass, alto"),
            ),
        ] {
            assert_eq!(ours.lost_in(&theirs).as_deref(), lost);
            let found = ours.difference(&theirs);
            assert_eq!(found.is_some(), difference.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(difference.unwrap_or_default()));
        }
    }

    #[test]
    fn a_member_that_nobody_has_reached_has_no_identity() {
        let member = |name: &str, model: &str| MemberStatus {
            name: name.into(),
            model_fingerprint: model.into(),
            reason: "connection refused".into(),
            ..MemberStatus::default()
        };
        let status =
            |members| StatusReply { members, vocabulary_fingerprint: "v".into(), ..StatusReply::default() };
        assert_eq!(
            Identity::of(&status(vec![member("alto", "1")])).unwrap(),
            identity("v", &[("alto", "1")])
        );
        let error = Identity::of(&status(vec![member("alto", "1"), member("bass", "")])).unwrap_err();
        assert_eq!(error.to_string(), "what member bass hosts is not known: connection refused");
        assert!(Identity::of(&status(Vec::new())).is_err());
    }
}
