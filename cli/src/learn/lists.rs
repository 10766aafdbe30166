//! [`Lists`]: the tokens that the ensemble or a member holds likeliest at every position, and what each member says of each of
//! them.
//!
//! Knows nothing about what is made of them.

use anyhow::{Context as _, bail};
use chorus_proto::v1::Rule;
use safetensors::SafeTensors;

use super::cache::Cache;
use super::collect::{Collected, Collecting, Unanswered};
use super::ensemble::RunningEnsemble;
use super::parts::Part;
use super::stream::{self, Asked};
use super::tensors::{Tensors, list};

/// Likeliest tokens of the ensemble and of each member: whoever is not listed has less than a hundredth by every member's word.
pub(crate) const LISTED: u32 = 100;

/// What is kept of it in a cache's manifest.
pub(crate) const ASKED: &str = "lists of 100";

/// Everybody's likeliest tokens, position by position.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lists {
    pub(crate) positions: Vec<ListedPosition>,
}

/// One position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListedPosition {
    /// The token that came.
    pub(crate) token: u32,
    /// Ascending.
    pub(crate) ids: Vec<u32>,
    /// For each of these, each member's log-probability, in member order.
    pub(crate) log_probs: Vec<Vec<f32>>,
}

/// Asks for those of every part.
///
/// # Errors
/// The ensemble can't be reached or refuses, changed, or says what can't be used.
pub(crate) async fn collect(collecting: &Collecting<'_>, parts: Vec<Part>) -> anyhow::Result<Collected> {
    let names = collecting.ensemble.identity.names();
    collecting.all(parts, |tokens, part| ask(collecting.ensemble.clone(), tokens, part, names.clone())).await
}

async fn ask(
    ensemble: RunningEnsemble,
    tokens: Vec<u32>,
    part: Part,
    names: Vec<String>,
) -> Result<Tensors, Unanswered> {
    let asked =
        Asked { top_n: Some(LISTED), temperature: 1.0, members: true, rule: Some(Rule::WeightedAverage) };
    let (mut came, mut counts, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut log_probs: Vec<f32> = Vec::new();
    stream::ask(ensemble, asked, &tokens, &part, &names, |position| {
        came.push(position.token);
        counts.push(u32::try_from(position.ids.len())?);
        ids.extend_from_slice(&position.ids);
        let column = |name: &String| position.members.iter().find(|(member, _)| member == name);
        let columns = names.iter().map(|name| Ok(&column(name).context("a member is missing")?.1));
        let columns = columns.collect::<anyhow::Result<Vec<&Vec<f32>>>>()?;
        for listed in 0..position.ids.len() {
            log_probs.extend(columns.iter().filter_map(|column| column.get(listed)));
        }
        Ok(())
    })
    .await?;
    Ok(Tensors::default()
        .with("tokens", &[came.len()], &came)
        .with("counts", &[counts.len()], &counts)
        .with("ids", &[ids.len()], &ids)
        .with("log_probs", &[ids.len(), names.len()], &log_probs))
}

impl Lists {
    /// Reads what is kept of these parts.
    ///
    /// # Errors
    /// A file is damaged.
    pub(crate) fn load(cache: &Cache, parts: &[Part]) -> anyhow::Result<Self> {
        let members = cache.manifest().ensemble.members.len();
        let mut lists = Self::default();
        for part in parts {
            let (path, bytes) = cache.read(part.index)?;
            let read = decode(&bytes, part, members);
            lists
                .positions
                .extend(read.with_context(|| format!("{} is damaged; remove it", path.display()))?);
        }
        Ok(lists)
    }
}

pub(super) fn decode(bytes: &[u8], part: &Part, members: usize) -> anyhow::Result<Vec<ListedPosition>> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, tokens) = list::<u32>(&file, "tokens")?;
    let (_, counts) = list::<u32>(&file, "counts")?;
    let (_, ids) = list::<u32>(&file, "ids")?;
    let (shape, log_probs) = list::<f32>(&file, "log_probs")?;
    let listed: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    if tokens.len() != part.tokens.len() || counts.len() != tokens.len() || listed != ids.len() as u64 {
        bail!("it is not of {} tokens, or its lists have other lengths than it says", part.tokens.len());
    }
    if shape != [ids.len(), members] {
        bail!("its log_probs have the shape {shape:?}; expected is {:?}", [ids.len(), members]);
    }
    let mut rows = log_probs.chunks_exact(members).map(<[f32]>::to_vec);
    let mut ids = ids.into_iter();
    let position = |(token, count): (u32, u32)| ListedPosition {
        token,
        ids: ids.by_ref().take(count as usize).collect(),
        log_probs: rows.by_ref().take(count as usize).collect(),
    };
    Ok(tokens.into_iter().zip(counts).map(position).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_what_is_damaged_is_not() {
        let part = Part { index: 0, tokens: 0..2, begin: 0 };
        let file = |counts: [u32; 2]| {
            Tensors::default()
                .with("tokens", &[2], &[5_u32, 6])
                .with("counts", &[2], &counts)
                .with("ids", &[3], &[1_u32, 2, 3])
                .with("log_probs", &[3, 2], &[-1.0_f32, -2.0, -3.0, -4.0, -5.0, -6.0])
                .encode()
                .unwrap()
        };
        let positions = decode(&file([1, 2]), &part, 2).unwrap();
        assert_eq!(positions[1].ids, [2, 3]);
        assert_eq!(positions[1].log_probs, [vec![-3.0, -4.0], vec![-5.0, -6.0]]);
        assert!(decode(&file([1, 1]), &part, 2).is_err());
        assert!(decode(&file([u32::MAX, u32::MAX]), &part, 2).is_err());
        assert!(decode(&file([1, 2]), &part, 3).is_err());
        assert!(decode(b"no tensors", &part, 2).is_err());
    }
}
