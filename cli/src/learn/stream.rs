//! The messages of `Distributions`, position by position. Knows nothing about what is kept of them.

use anyhow::{Context as _, bail};
use chorus_proto::v1::{DistributionsReply, DistributionsRequest, FusionOptions, Rule};

use super::collect::{Unanswered, all_there, refused};
use super::ensemble::{RunningEnsemble, input_of};
use super::parts::Part;

/// What is wanted of every position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Only so many of the likeliest tokens.
    pub(crate) top_n: Option<u32>,
    pub(crate) temperature: f64,
    /// The members' own, too.
    pub(crate) members: bool,
    /// None is the configured one.
    pub(crate) rule: Option<Rule>,
}

/// One position of a message.
pub(crate) struct Position<'a> {
    /// The token that came.
    pub(crate) token: u32,
    /// The listed tokens; of whole rows none, and all are meant.
    pub(crate) ids: Vec<u32>,
    /// Of the ensemble, for each of these.
    pub(crate) log_probs: Vec<f32>,
    /// Of each member by name, for each of these.
    pub(crate) members: Vec<(&'a str, Vec<f32>)>,
}

/// Asks about a part, and hands every position of it on.
///
/// # Errors
/// Somebody of `names` was missing, the ensemble refused, or what it said can't be read.
pub(crate) async fn ask(
    mut ensemble: RunningEnsemble,
    asked: Asked,
    tokens: &[u32],
    part: &Part,
    names: &[String],
    mut keep: impl FnMut(&Position<'_>) -> anyhow::Result<()>,
) -> Result<(), Unanswered> {
    let request = DistributionsRequest {
        input: input_of(tokens),
        fusion: Some(FusionOptions {
            rule: asked.rule.unwrap_or_default().into(),
            allow_degraded: Some(false),
            ..FusionOptions::default()
        }),
        top_n: asked.top_n,
        temperature: (asked.temperature != 1.0).then_some(asked.temperature),
        members: asked.members,
    };
    let sent = ensemble.client.distributions(request).await;
    let mut replies = sent.map_err(|status| refused(&ensemble, &status))?.into_inner();
    let vocabulary_size = ensemble.vocabulary.len() as usize;
    let mut read = 0;
    while let Some(reply) = replies.message().await.map_err(|status| refused(&ensemble, &status))? {
        let participants = reply.participation.iter().flat_map(|found| &found.participants);
        all_there(names, &participants.collect::<Vec<_>>())?;
        for position in positions(&reply, vocabulary_size)? {
            let expected = tokens.get(read).copied();
            if Some(position.token) != expected {
                return Err(
                    anyhow::anyhow!("the ensemble speaks of another text than it was asked about").into()
                );
            }
            if read >= part.context() {
                keep(&position)?;
            }
            read += 1;
        }
    }
    if read != tokens.len() {
        return Err(anyhow::anyhow!("the ensemble spoke of {read} tokens of {}", tokens.len()).into());
    }
    Ok(())
}

/// What a message says, checked against itself.
pub(super) fn positions(
    reply: &DistributionsReply,
    vocabulary_size: usize,
) -> anyhow::Result<Vec<Position<'_>>> {
    let ids = words(&reply.ids, u32::from_le_bytes);
    let log_probs = words(&reply.log_probs, f32::from_le_bytes);
    let members = reply.members.iter();
    let members: Vec<(&str, Vec<f32>)> =
        members.map(|member| (member.name.as_str(), words(&member.log_probs, f32::from_le_bytes))).collect();
    let are_lists = !reply.counts.is_empty();
    let mut start = 0;
    let mut positions = Vec::with_capacity(reply.tokens.len());
    for (row, token) in reply.tokens.iter().enumerate() {
        let count = match reply.counts.get(row) {
            Some(count) => *count as usize,
            None if are_lists => bail!("a message of the ensemble has a count too few"),
            None => vocabulary_size,
        };
        let range = start..start + count;
        let of = |values: &[f32]| values.get(range.clone()).map(<[f32]>::to_vec);
        let of = |values: &[f32]| of(values).context("a message of the ensemble ends too early");
        let listed = if are_lists {
            ids.get(range.clone()).context("a message of the ensemble ends too early")?.to_vec()
        } else {
            Vec::new()
        };
        positions.push(Position {
            token: *token,
            ids: listed,
            log_probs: of(&log_probs)?,
            members: members
                .iter()
                .map(|(name, values)| Ok((*name, of(values)?)))
                .collect::<anyhow::Result<_>>()?,
        });
        start = range.end;
    }
    Ok(positions)
}

fn words<T>(bytes: &[u8], word: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.chunks_exact(4).filter_map(|bytes| Some(word(bytes.try_into().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_into_its_positions_and_a_short_one_is_refused() {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let reply = DistributionsReply {
            tokens: vec![5, 6],
            counts: vec![1, 2],
            ids: [7_u32, 8, 9].iter().flat_map(|id| id.to_le_bytes()).collect(),
            log_probs: bytes(&[-1.0, -2.0, -3.0]),
            ..DistributionsReply::default()
        };
        let found = positions(&reply, 100).unwrap();
        assert_eq!((found[0].token, &found[0].ids[..], &found[0].log_probs[..]), (5, &[7][..], &[-1.0][..]));
        assert_eq!(
            (found[1].token, &found[1].ids[..], &found[1].log_probs[..]),
            (6, &[8, 9][..], &[-2.0, -3.0][..])
        );
        let short = DistributionsReply { log_probs: bytes(&[-1.0]), ..reply.clone() };
        assert!(positions(&short, 100).is_err());
        assert!(positions(&DistributionsReply { counts: vec![1], ..reply.clone() }, 100).is_err());
        let whole = DistributionsReply { counts: Vec::new(), ids: Vec::new(), tokens: vec![5], ..reply };
        assert_eq!(positions(&whole, 3).unwrap()[0].log_probs, [-1.0, -2.0, -3.0]);
        assert!(positions(&whole, 4).is_err());
    }
}
