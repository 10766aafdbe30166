//! [`Scores`]: each member's log-probability of each token of a text, one number a token and member.
//!
//! Knows nothing about what is made of them.

use anyhow::{Context as _, bail};
use chorus_proto::v1::{FusionOptions, Rule, ScoreReply, ScoreRequest};
use safetensors::SafeTensors;

use super::cache::Cache;
use super::collect::{Collected, Collecting, Unanswered, all_there, refused};
use super::ensemble::{RunningEnsemble, input_of};
use super::parts::Part;
use super::tensors::{Tensors, list};

/// What is kept of it in a cache's manifest.
pub(crate) const ASKED: &str = "scores";

/// A matrix of log-probabilities.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Scores {
    /// The tokens' places in the text.
    pub(crate) positions: Vec<usize>,
    /// For each token, each member's, in member order.
    pub(crate) log_probs: Vec<Vec<f64>>,
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
    mut ensemble: RunningEnsemble,
    tokens: Vec<u32>,
    part: Part,
    names: Vec<String>,
) -> Result<Tensors, Unanswered> {
    let request = ScoreRequest {
        input: input_of(&tokens),
        fusion: Some(FusionOptions {
            rule: Rule::WeightedAverage.into(),
            allow_degraded: Some(false),
            ..FusionOptions::default()
        }),
        per_token: true,
    };
    let reply = ensemble.client.score(request).await.map_err(|status| refused(&ensemble, &status))?;
    let reply = reply.into_inner();
    let there: Vec<&String> = reply.members.iter().map(|member| &member.name).collect();
    all_there(&names, &there)?;
    Ok(read(&reply, &part, &names)?)
}

/// The name by which what the ensemble itself says under a rule is kept.
pub(crate) fn fused_name(rule: chorus_coordinator::fusion::Rule) -> String {
    format!("{rule} scores")
}

/// Asks for the ensemble's own log-probability of every token of every part, under a rule.
///
/// # Errors
/// As [`collect`].
pub(crate) async fn collect_fused(
    collecting: &Collecting<'_>,
    parts: Vec<Part>,
    rule: chorus_coordinator::fusion::Rule,
) -> anyhow::Result<Collected> {
    let names = collecting.ensemble.identity.names();
    let ask = |tokens: Vec<u32>, part: Part| {
        let (mut ensemble, names) = (collecting.ensemble.clone(), names.clone());
        async move {
            let fusion = FusionOptions {
                rule: Rule::from(rule).into(),
                allow_degraded: Some(false),
                ..FusionOptions::default()
            };
            let request = ScoreRequest { input: input_of(&tokens), fusion: Some(fusion), per_token: true };
            let reply = ensemble.client.score(request).await.map_err(|status| refused(&ensemble, &status))?;
            let reply = reply.into_inner();
            let there: Vec<&String> = reply.members.iter().map(|member| &member.name).collect();
            all_there(&names, &there)?;
            Ok(read_fused(&reply, &part)?)
        }
    };
    collecting.all(parts, ask).await
}

fn read_fused(reply: &ScoreReply, part: &Part) -> anyhow::Result<Tensors> {
    let rows = reply.token_scores.get(part.context()..).unwrap_or_default();
    if rows.len() != part.tokens.len() {
        bail!("the ensemble scored {} tokens of {}", rows.len(), part.tokens.len());
    }
    let log_probs = rows.iter().map(|row| row.log_prob.context("the rule has no log-probabilities"));
    let log_probs = log_probs.collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(Tensors::default().with("log_probs", &[rows.len(), 1], &log_probs))
}

/// The columns of these members, in this order.
fn read(reply: &ScoreReply, part: &Part, names: &[String]) -> anyhow::Result<Tensors> {
    let column = |name: &String| {
        let place = reply.members.iter().position(|member| member.name == *name);
        place.with_context(|| format!("{name} is missing"))
    };
    let columns = names.iter().map(column).collect::<anyhow::Result<Vec<usize>>>()?;
    let rows = reply.token_scores.get(part.context()..).unwrap_or_default();
    if rows.len() != part.tokens.len() {
        bail!("the ensemble scored {} tokens of {}", rows.len(), part.tokens.len());
    }
    let mut log_probs = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        for column in &columns {
            log_probs
                .push(*row.member_log_probs.get(*column).context("a token's score has a member too few")?);
        }
    }
    let ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
    Ok(Tensors::default().with("tokens", &[ids.len()], &ids).with(
        "log_probs",
        &[ids.len(), names.len()],
        &log_probs,
    ))
}

impl Scores {
    /// Reads what is kept of these parts.
    ///
    /// # Errors
    /// A file is damaged.
    pub(crate) fn load(cache: &Cache, parts: &[Part]) -> anyhow::Result<Self> {
        let members = cache.manifest().ensemble.members.len();
        let mut scores = Self::default();
        for part in parts {
            let (path, bytes) = cache.read(part.index)?;
            let rows = decode(&bytes, part, members);
            let rows = rows.with_context(|| format!("{} is damaged; remove it", path.display()))?;
            scores.positions.extend(part.tokens.clone());
            scores.log_probs.extend(rows.chunks_exact(members).map(<[f64]>::to_vec));
        }
        Ok(scores)
    }
}

impl Scores {
    /// Reads what [`collect_fused`] keeps of these parts, token by token.
    ///
    /// # Errors
    /// A file is damaged.
    pub(crate) fn load_fused(cache: &Cache, parts: &[Part]) -> anyhow::Result<Vec<f64>> {
        let mut log_probs = Vec::new();
        for part in parts {
            let (path, bytes) = cache.read(part.index)?;
            let read = decode(&bytes, part, 1);
            log_probs.extend(read.with_context(|| format!("{} is damaged; remove it", path.display()))?);
        }
        Ok(log_probs)
    }
}

pub(super) fn decode(bytes: &[u8], part: &Part, members: usize) -> anyhow::Result<Vec<f64>> {
    let file = SafeTensors::deserialize(bytes)?;
    let (shape, log_probs) = list::<f64>(&file, "log_probs")?;
    if shape != [part.tokens.len(), members] {
        bail!("its log_probs have the shape {shape:?}; expected is {:?}", [part.tokens.len(), members]);
    }
    Ok(log_probs)
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{MemberScore, TokenScore};

    use super::*;

    fn reply(members: &[&str], rows: &[&[f64]]) -> ScoreReply {
        let member = |name: &&str| MemberScore { name: (*name).into(), ..MemberScore::default() };
        let row = |row: &&[f64]| TokenScore { member_log_probs: row.to_vec(), ..TokenScore::default() };
        ScoreReply {
            members: members.iter().map(member).collect(),
            token_scores: rows.iter().map(row).collect(),
            ..ScoreReply::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn columns_are_found_by_name_and_what_was_read_before_is_left_out() {
        let part = Part { index: 1, tokens: 4..6, begin: 3 };
        let reply =
            reply(&["tuba", "bass", "alto"], &[&[9.0, 9.0, 9.0], &[0.0, -2.0, -1.0], &[0.0, -4.0, -3.0]]);
        let bytes = read(&reply, &part, &names(&["alto", "bass"])).unwrap().encode().unwrap();
        assert_eq!(decode(&bytes, &part, 2).unwrap(), [-1.0, -2.0, -3.0, -4.0]);
        let error = decode(&bytes, &part, 3).unwrap_err().to_string();
        assert!(error.contains("expected is [2, 3]"), "{error}");
        let error = read(&reply, &part, &names(&["alto", "cello"])).unwrap_err().to_string();
        assert_eq!(error, "cello is missing");
        let short = Part { index: 1, tokens: 4..9, begin: 3 };
        assert!(
            read(&reply, &short, &names(&["alto"])).unwrap_err().to_string().contains("scored 2 tokens of 5")
        );
    }
}
