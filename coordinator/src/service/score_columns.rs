//! The numbers of a scoring as its pieces come: one column for each member and one for the ensemble.
//!
//! Pure: knows nothing about members' health, time or the wire's framing.

use std::collections::BTreeMap;

use chorus_proto::v1::Votes;

use crate::fusion::{FuseError, Fused, fuse_targets};
use crate::member::Answer;
use crate::request::Scoring;
use crate::session::StepAnswers;

/// What the rule says about a token that came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FusedToken {
    /// Its log-probability under the fused distribution.
    LogProb(f64),
    /// Its votes, and whether it was the rule's winner.
    Vote { votes: Votes, winner: bool },
}

/// The numbers of one piece of the input, or of all pieces so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Columns {
    /// Each member's log-probabilities, by member index.
    pub(super) members: BTreeMap<usize, Vec<f64>>,
    /// What the rule says; empty until [`Columns::finish`] where the members' log-probabilities determine it.
    pub(super) fused: Vec<FusedToken>,
}

impl Columns {
    /// Reads one piece's answers about `tokens`. Rows are fused here; log-probabilities wait for the end, so that a
    /// member that is lost on the way leaves no trace in the result.
    pub(super) fn read(scoring: &Scoring, tokens: &[u32], answers: &StepAnswers) -> Result<Self, FuseError> {
        let mut columns = Self::default();
        for (index, answer) in &answers.answers {
            if let Answer::Targets(log_probs) = answer {
                columns.members.insert(*index, log_probs.clone());
            }
        }
        if columns.members.is_empty() {
            for (number, token) in tokens.iter().enumerate() {
                columns.read_rows(scoring, number, *token, answers)?;
            }
        }
        Ok(columns)
    }

    /// Whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the members of `next` can go on where these columns end. Members that are missing there can be left out
    /// only while nothing of theirs is in a fused number.
    pub(super) fn continues_with(&self, next: &Self) -> bool {
        self.is_empty() || self.fused.is_empty() || self.members.keys().eq(next.members.keys())
    }

    /// Appends the next piece and drops the members that are not in it.
    pub(super) fn append(&mut self, next: Self) {
        if self.is_empty() {
            *self = next;
            return;
        }
        self.members.retain(|index, _| next.members.contains_key(index));
        for (index, log_probs) in next.members {
            if let Some(column) = self.members.get_mut(&index) {
                column.extend(log_probs);
            }
        }
        self.fused.extend(next.fused);
    }

    /// Fuses what has waited for the end.
    pub(super) fn finish(&mut self, scoring: &Scoring) -> Result<(), FuseError> {
        if !self.fused.is_empty() {
            return Ok(());
        }
        let members = self.members.iter();
        let members: Vec<(f64, &[f64])> =
            members.map(|(index, log_probs)| (scoring.weights.of(*index), log_probs.as_slice())).collect();
        let fused = fuse_targets(&members)?;
        self.fused = fused.into_iter().map(FusedToken::LogProb).collect();
        Ok(())
    }

    fn read_rows(
        &mut self,
        scoring: &Scoring,
        number: usize,
        token: u32,
        answers: &StepAnswers,
    ) -> Result<(), FuseError> {
        for (index, row) in answers.rows(number) {
            // Tokens and rows were checked against one vocabulary.
            let log_prob = row.log_prob(token).unwrap_or(f64::NEG_INFINITY);
            self.members.entry(index).or_default().push(log_prob);
        }
        self.fused.push(match answers.fuse(number, &scoring.fusion, &scoring.weights)? {
            Fused::Distribution(distribution) => {
                FusedToken::LogProb(distribution.log_prob(token).unwrap_or(f64::NEG_INFINITY))
            }
            Fused::Winner(winner) => FusedToken::Vote {
                votes: Votes {
                    count: winner.votes_for(token),
                    by_weighted_average: winner.by_weighted_average,
                },
                winner: winner.id == token,
            },
        });
        Ok(())
    }
}
