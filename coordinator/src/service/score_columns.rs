//! The numbers of a scoring as its pieces come: one column for each member and one for the ensemble.
//!
//! Pure: knows nothing about members' health, time or the wire's framing.

use std::collections::BTreeMap;

use chorus_proto::v1::Votes;

use crate::fusion::certificate::{Contest, Evidence, Outcome, Places, outcome};
use crate::fusion::{FuseError, Fused, fuse_targets};
use crate::replica::Answer;
use crate::request::Fusing;
use crate::session::StepAnswers;
use crate::weights::Weighting;

/// What the rule says about a token that came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FusedToken {
    /// Its log-probability under the fused distribution.
    LogProb(f64),
    /// Its votes, and whether it was the rule's winner; none where what the members said leaves that open.
    Vote { votes: Votes, winner: Option<bool> },
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
    /// Reads one piece's answers about `tokens`. Rows and likeliest tokens are fused here; log-probabilities wait for the
    /// end, so that a member that is lost on the way leaves no trace in the result.
    pub(super) fn read(
        fusing: &Fusing,
        tokens: &[u32],
        vocabulary_size: usize,
        answers: &StepAnswers,
    ) -> Result<Self, FuseError> {
        let mut columns = Self::default();
        for (index, answer) in &answers.answers {
            if let Answer::Targets(log_probs) = answer {
                columns.members.insert(*index, log_probs.clone());
            }
        }
        if !columns.members.is_empty() {
            return Ok(columns);
        }
        let are_rows = answers.answers.iter().any(|(_, answer)| matches!(answer, Answer::Rows(_)));
        for (number, token) in tokens.iter().enumerate() {
            if are_rows {
                columns.read_rows(fusing, number, *token, answers)?;
            } else {
                columns.read_tops(fusing, number, *token, vocabulary_size, answers)?;
            }
        }
        Ok(columns)
    }

    /// Positions whose winner is open.
    pub(super) fn open_positions(&self) -> Vec<usize> {
        let fused = self.fused.iter().enumerate();
        let is_open = |fused: &FusedToken| matches!(fused, FusedToken::Vote { winner: None, .. });
        fused.filter(|(_, fused)| is_open(fused)).map(|(position, _)| position).collect()
    }

    /// Says whether the token at a position is the winner.
    pub(super) fn settle(&mut self, position: usize, wins: bool) {
        if let Some(FusedToken::Vote { winner, .. }) = self.fused.get_mut(position) {
            *winner = Some(wins);
        }
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

    /// Drops these members' numbers; nothing of theirs is in a fused number.
    pub(super) fn leave_out(&mut self, members: &BTreeMap<usize, String>) {
        self.members.retain(|index, _| !members.contains_key(index));
    }

    /// The members that are in the numbers.
    pub(super) fn participants(&self) -> Vec<usize> {
        self.members.keys().copied().collect()
    }

    /// Fuses what has waited for the end. Gives the weights as they are after the last token.
    pub(super) fn finish(&mut self, fusing: &Fusing) -> Result<Weighting, FuseError> {
        let mut weighting = fusing.weighting.clone();
        if weighting.is_adaptive() {
            self.fused = self.follow(&mut weighting)?;
        } else if self.fused.is_empty() {
            let weights = weighting.among(&self.participants());
            let members = self.members.iter();
            let members = members.map(|(index, log_probs)| (weights.of(*index), log_probs.as_slice()));
            let fused = fuse_targets(&members.collect::<Vec<_>>())?;
            self.fused = fused.into_iter().map(FusedToken::LogProb).collect();
        }
        Ok(weighting)
    }

    /// Token by token, each with the weights after those before it.
    fn follow(&self, weighting: &mut Weighting) -> Result<Vec<FusedToken>, FuseError> {
        let participants = self.participants();
        let tokens = self.members.values().map(Vec::len).min().unwrap_or(0);
        let mut fused = Vec::with_capacity(tokens);
        for position in 0..tokens {
            let said = self.members.iter();
            let said: Vec<(usize, f64)> =
                said.filter_map(|(index, said)| Some((*index, *said.get(position)?))).collect();
            let weights = weighting.among(&participants);
            let members: Vec<(f64, &[f64])> = said
                .iter()
                .map(|(index, log_prob)| (weights.of(*index), std::slice::from_ref(log_prob)))
                .collect();
            fused.extend(fuse_targets(&members)?.into_iter().map(FusedToken::LogProb));
            weighting.observe(&said);
        }
        Ok(fused)
    }

    fn read_rows(
        &mut self,
        fusing: &Fusing,
        number: usize,
        token: u32,
        answers: &StepAnswers,
    ) -> Result<(), FuseError> {
        for (index, row) in answers.rows(number) {
            // Tokens and rows were checked against one vocabulary.
            let log_prob = row.log_prob(token).unwrap_or(f64::NEG_INFINITY);
            self.members.entry(index).or_default().push(log_prob);
        }
        let Fusing { fusion, weighting, .. } = fusing;
        if weighting.is_adaptive() {
            // The weights follow from all tokens before this one.
            return Ok(());
        }
        let weights = weighting.among(&answers.participants);
        self.fused.push(answers.fuse(number, fusion, &weights, |fused| match fused {
            Fused::Distribution(distribution) => {
                FusedToken::LogProb(distribution.log_prob(token).unwrap_or(f64::NEG_INFINITY))
            }
            Fused::Winner(winner) => FusedToken::Vote {
                votes: Votes {
                    count: winner.votes_for(token),
                    by_weighted_average: winner.by_weighted_average,
                },
                winner: Some(winner.id == token),
            },
        })?);
        Ok(())
    }

    fn read_tops(
        &mut self,
        fusing: &Fusing,
        number: usize,
        token: u32,
        vocabulary_size: usize,
        answers: &StepAnswers,
    ) -> Result<(), FuseError> {
        let Fusing { fusion, weighting, .. } = fusing;
        let weights = weighting.among(&answers.participants);
        let mut said = Vec::with_capacity(answers.answers.len());
        for (place, (index, answer)) in answers.answers.iter().enumerate() {
            let unsound = |error| FuseError::Unsound { place, error };
            // An answer is checked against its question where it comes in.
            let Answer::Top(tops) = answer else { continue };
            let top = tops.row(number).map_err(unsound)?;
            let mut evidence = Evidence::new(&top);
            let target = top.target.as_slice();
            evidence.learn(&[token], target, top.norm).map_err(unsound)?;
            let log_prob = evidence.log_prob(token).unwrap_or(f64::NEG_INFINITY);
            self.members.entry(*index).or_default().push(log_prob);
            said.push((weights.of(*index), evidence));
        }
        let participants: Vec<(f64, &Evidence)> =
            said.iter().map(|(weight, evidence)| (*weight, evidence)).collect();
        let log_threshold = Some(fusion.threshold.ln());
        let contest = Contest { log_threshold, places: Places::Winner, vocabulary_size };
        let Outcome { votes, by_weighted_average, wins } = outcome(token, &contest, &participants)?;
        self.fused
            .push(FusedToken::Vote { votes: Votes { count: votes, by_weighted_average }, winner: wins });
        Ok(())
    }
}
