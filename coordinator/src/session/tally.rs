//! [`Tally`]: who answered a step and who failed, and what follows from all failures together.
//!
//! Pure. Knows nothing about quorum or about how members are asked.

use chorus_proto::v1::Participation;

use super::answers::StepAnswers;
use crate::replica::{Answer, ReplicaError};

/// What the members of one step did.
#[derive(Default)]
pub(super) struct Tally {
    /// In member order.
    pub(super) answers: Vec<(usize, Answer)>,
    pub(super) failures: Vec<ReplicaError>,
}

/// Who takes part in a step.
pub(super) struct Standing {
    pub(super) participants: Vec<usize>,
    pub(super) participation: Participation,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.answers.sort_unstable_by_key(|(index, _)| *index);
        self.failures.extend(other.failures);
    }

    /// Those who answered, and `others`, in member order.
    pub(super) fn participants(&self, others: &[usize]) -> Vec<usize> {
        let answered = self.answers.iter().map(|(index, _)| *index);
        let mut participants: Vec<usize> = others.iter().copied().chain(answered).collect();
        participants.sort_unstable();
        participants
    }

    /// The first sentence, where all of so many members refused.
    pub(super) fn refusal_of_all(&self, members: usize) -> Option<String> {
        if self.failures.len() != members {
            return None;
        }
        let refusals = self.failures.iter().map(|failure| match failure {
            ReplicaError::Refused { message } => Some(message.clone()),
            _ => None,
        });
        refusals.collect::<Option<Vec<_>>>()?.into_iter().next()
    }

    /// Whether somebody failed, and all who did have no room.
    pub(super) fn are_exhausted(&self) -> bool {
        let is_exhausted = |failure: &ReplicaError| matches!(failure, ReplicaError::Exhausted { .. });
        !self.failures.is_empty() && self.failures.iter().all(is_exhausted)
    }

    pub(super) fn into_answers(self, standing: Standing) -> StepAnswers {
        let Standing { participants, participation } = standing;
        StepAnswers { answers: self.answers, participants, participation, _budget: None }
    }
}
