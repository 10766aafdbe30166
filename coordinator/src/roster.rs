//! [`Roster`]: the members in member order, with what the ensemble needs of them to answer at all.
//!
//! Knows nothing about sessions, requests or how a member is reached.

use std::sync::Arc;

use chorus_proto::v1::{ModelCard, Participation};

use crate::dense::DenseBudget;
use crate::member::Member;
use crate::quorum::{Attendance, Quorum, QuorumError};
use crate::weights::Weights;

/// All members, in the order of the configuration.
pub(crate) struct Roster {
    pub(crate) members: Vec<Arc<Member>>,
    /// One for each of them, as configured.
    pub(crate) weights: Weights,
    pub(crate) quorum: Quorum,
    /// What rows of whole inputs may be under way.
    pub(crate) dense: DenseBudget,
}

impl Roster {
    /// Whether those who answered may speak for the ensemble. `participation` has the reasons of those who are missing.
    pub(crate) fn check_quorum(&self, participation: &Participation) -> Result<(), QuorumError> {
        let missing = |name: &str| {
            let missing = participation.missing.iter().find(|missing| missing.name == name);
            missing.map(|missing| missing.reason.as_str())
        };
        let attendance = self.members.iter().enumerate().map(|(index, member)| Attendance {
            name: member.name(),
            weight: self.weights.of(index),
            missing: missing(member.name()),
        });
        self.quorum.check(&attendance.collect::<Vec<_>>())
    }

    /// Whether enough members are up to answer now.
    pub(crate) fn can_answer(&self) -> Result<(), QuorumError> {
        self.with_attendance(|members| self.quorum.check(members))
    }

    /// So many more of them may be lost, whichever they are, until they can't answer.
    pub(crate) fn to_spare(&self) -> usize {
        self.with_attendance(|members| self.quorum.to_spare(members))
    }

    fn with_attendance<T>(&self, look: impl FnOnce(&[Attendance<'_>]) -> T) -> T {
        let presences: Vec<_> = self.members.iter().map(|member| member.presence()).collect();
        let attendance = self.members.iter().zip(&presences).enumerate();
        let attendance = attendance.map(|(index, (member, presence))| Attendance {
            name: member.name(),
            weight: self.weights.of(index),
            missing: (!presence.is_up()).then(|| presence.reason()),
        });
        look(&attendance.collect::<Vec<_>>())
    }

    /// The card of a member, once it was reached.
    pub(crate) fn card(&self, index: usize) -> Option<Arc<ModelCard>> {
        self.members.get(index)?.card()
    }

    /// Whether a member's model says that this token of the vocabulary with this fingerprint ends a generation. The card
    /// of a member that is away may be of another vocabulary.
    pub(crate) fn is_end_token(&self, token: u32, fingerprint: &str) -> bool {
        let mut cards = self.members.iter().filter_map(|member| member.card());
        cards.any(|card| card.end_token == Some(token) && card.vocabulary_fingerprint == fingerprint)
    }
}
