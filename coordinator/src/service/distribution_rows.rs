//! Rows of all members as messages of distributions.
//!
//! Pure: knows nothing about members' health, time or how messages leave.

use chorus_proto::v1::{DistributionsReply, MemberDistributions};

use crate::fusion::{Distribution, FuseError, Fused, Fusion, Row};
use crate::sampling::tempered;
use crate::session::StepAnswers;
use crate::weights::Weighting;

/// The most bytes that a message should have.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of a listed token: its id, and a logarithm of everybody.
const LISTED_BYTES: usize = 4;

/// What is wanted of every row.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) fusion: Fusion,
    pub(super) weighting: Weighting,
    /// All tokens where absent.
    pub(super) top_n: Option<usize>,
    pub(super) temperature: f64,
    pub(super) members: bool,
    pub(super) vocabulary_size: usize,
}

/// What is said of one position by everybody.
struct Position {
    /// Ascending.
    ids: Vec<u32>,
    log_probs: Vec<f64>,
    /// Of each participant, where they are wanted.
    members: Vec<Vec<f64>>,
}

/// The messages about the rows of `tokens`, of which the first has this position. Gives the weights after the last token.
pub(super) fn replies(
    mut wanted: Wanted,
    first: usize,
    tokens: &[u32],
    answers: &StepAnswers,
) -> Result<(Vec<DistributionsReply>, Weighting), FuseError> {
    let rows_of_message = wanted.rows_of_message(answers.participants.len());
    let mut replies = Vec::new();
    for (chunk, tokens) in tokens.chunks(rows_of_message).enumerate() {
        let offset = chunk * rows_of_message;
        let mut reply = wanted.empty(first + offset, tokens, answers);
        for (number, token) in tokens.iter().enumerate() {
            let position = wanted.position(offset + number, answers)?;
            append(&mut reply, &position, wanted.top_n.is_some());
            if wanted.weighting.is_adaptive() {
                let said = answers.rows(offset + number).into_iter();
                let said = said.filter_map(|(index, row)| Some((index, row.log_prob(*token)?)));
                wanted.weighting.observe(&said.collect::<Vec<_>>());
            }
        }
        replies.push(reply);
    }
    Ok((replies, wanted.weighting))
}

impl Wanted {
    fn rows_of_message(&self, participants: usize) -> usize {
        let voices = if self.members { participants + 1 } else { 1 };
        let listed = self
            .top_n
            .map_or(self.vocabulary_size, |top_n| top_n.saturating_mul(voices).min(self.vocabulary_size));
        (MESSAGE_BYTES / (listed * LISTED_BYTES * (voices + 1)).max(1)).max(1)
    }

    fn empty(&self, first: usize, tokens: &[u32], answers: &StepAnswers) -> DistributionsReply {
        let names = answers.participation.participants.iter().filter(|_| self.members);
        let member = |name: &String| MemberDistributions { name: name.clone(), ..Default::default() };
        DistributionsReply {
            first: u32::try_from(first).unwrap_or(u32::MAX),
            tokens: tokens.to_vec(),
            members: names.map(member).collect(),
            ..DistributionsReply::default()
        }
    }

    fn position(&self, number: usize, answers: &StepAnswers) -> Result<Position, FuseError> {
        let weights = self.weighting.among(&answers.participants);
        let rows: Vec<Row<'_>> = if self.members {
            answers.rows(number).into_iter().map(|(_, row)| row).collect()
        } else {
            Vec::new()
        };
        let fused = answers.fuse(number, &self.fusion, &weights, |fused| match fused {
            Fused::Distribution(mut fused) => {
                let ids = self.listed(&fused, &rows);
                let log_probs = self.log_probs(&mut fused, &ids);
                (ids, log_probs)
            }
            // A request for a vote is refused.
            Fused::Winner(_) => (Vec::new(), Vec::new()),
        });
        let (ids, log_probs) = fused?;
        let of_row =
            |row: &Row<'_>| ids.iter().map(|id| row.log_prob(*id).unwrap_or(f64::NEG_INFINITY)).collect();
        Ok(Position { members: rows.iter().map(of_row).collect(), ids, log_probs })
    }

    fn listed(&self, fused: &Distribution<'_>, rows: &[Row<'_>]) -> Vec<u32> {
        let Some(top_n) = self.top_n else {
            return (0..u32::try_from(fused.len()).unwrap_or(u32::MAX)).collect();
        };
        let of_members = rows.iter().flat_map(|row| row.top(top_n));
        let mut ids: Vec<u32> =
            fused.top(top_n).into_iter().chain(of_members).map(|candidate| candidate.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn log_probs(&self, fused: &mut Distribution<'_>, ids: &[u32]) -> Vec<f64> {
        let exact = |fused: &Distribution<'_>, id: u32| fused.log_prob(id).unwrap_or(f64::NEG_INFINITY);
        if self.temperature == 1.0 {
            return ids.iter().map(|id| exact(fused, *id)).collect();
        }
        let (likeliest, log_sum) = tempered(fused, self.temperature);
        ids.iter().map(|id| (exact(fused, *id) - likeliest) / self.temperature - log_sum).collect()
    }
}

fn append(reply: &mut DistributionsReply, position: &Position, is_list: bool) {
    let Position { ids, log_probs, members } = position;
    if is_list {
        reply.counts.push(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        reply.ids.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    let listed: f64 = log_probs.iter().map(|log_prob| log_prob.exp()).sum();
    reply.rest.push(if is_list { (1.0 - listed).max(0.0) as f32 } else { 0.0 });
    reply.log_probs.extend(little_endian(log_probs));
    for (member, log_probs) in reply.members.iter_mut().zip(members) {
        member.log_probs.extend(little_endian(log_probs));
    }
}

fn little_endian(values: &[f64]) -> impl Iterator<Item = u8> {
    values.iter().flat_map(|value| (*value as f32).to_le_bytes())
}
