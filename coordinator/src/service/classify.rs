//! `Classify`: which of some labels a text has. The members' distributions over labels are fused as those over tokens are.
//!
//! Knows nothing about how members are reached, or how what labels share is read once.

use std::sync::Arc;

use chorus_proto::v1::{self, ClassifyReply, LabelProbability, MemberLabels};
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::fallback;
use super::forest::{AT_A_TIME, Forest, Said};
use super::participation::expect;
use crate::ensemble::{Ensemble, fuse_status};
use crate::fusion::{FuseError, Fused, Row, Scratch, fuse, shares};
use crate::request::Classification;
use crate::telemetry::{self, Method};
use crate::token_trie::TokenTrie;

pub(super) async fn classify(
    ensemble: Arc<Ensemble>,
    wanted: Classification,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<ClassifyReply, Status> {
    let trie = TokenTrie::new(&wanted.sequences);
    telemetry::asked(wanted.fusing.fusion.rule, Classification::plan().kind());
    let reply = classify_by_anybody(&ensemble, wanted, &trie, &vocabulary, call).await?;
    if let Some(participation) = &reply.participation {
        ensemble.common.answers.given(Method::Classify, trie.tokens(), participation);
    }
    Ok(reply)
}

async fn classify_by_anybody(
    ensemble: &Arc<Ensemble>,
    wanted: Classification,
    trie: &TokenTrie,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<ClassifyReply, Status> {
    let _branches = ensemble.common.branches(trie.len().min(AT_A_TIME)).await;
    let failure = match classify_by(ensemble, &wanted, trie, vocabulary, call).await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let fallback = fallback::instead(ensemble, &wanted.fusing, failure)?;
    // What was learned of the members says nothing of another model.
    let calibrations = vec![wanted.uncalibrated()];
    let wanted = Classification { fusing: wanted.fusing.alone(), calibrations, ..wanted };
    let mut reply = classify_by(&fallback, &wanted, trie, vocabulary, call).await?;
    fallback::mark(reply.participation.get_or_insert_default(), ensemble);
    Ok(reply)
}

async fn classify_by(
    ensemble: &Arc<Ensemble>,
    wanted: &Classification,
    trie: &TokenTrie,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<ClassifyReply, Status> {
    let forest = Forest {
        ensemble,
        vocabulary,
        call,
        fusing: &Arc::new(wanted.fusing.clone()),
        plan: Classification::plan(),
        sequences: &wanted.sequences,
        trie,
    };
    let said = forest.read(&[&[]]).await?;
    let Some(said) = said.into_iter().next() else {
        return Err(fuse_status(FuseError::NoParticipants, &v1::Participation::default()));
    };
    let mut participation = said.participation.clone();
    expect(&mut participation, &ensemble.names, &wanted.fusing.weighting);
    let members = member_labels(ensemble, wanted, trie, &said);
    let weighting = wanted.fusing.weighting.among(&said.participants);
    let weights = weighting.of_all(&said.participants);
    let rule = wanted.fusing.fusion.rule;
    let shares = shares(rule, &weights).map_err(|error| fuse_status(error, &participation))?;
    let labels = fused(wanted, &members, &weights).map_err(|error| fuse_status(error, &participation))?;
    let members = members.into_iter().zip(shares).map(|(member, weight)| MemberLabels { weight, ..member });
    Ok(ClassifyReply {
        labels,
        members: members.collect(),
        participation: Some(participation),
        rule: v1::Rule::from(rule).into(),
    })
}

/// What each participant holds the text and the labels for; no weights yet.
fn member_labels(
    ensemble: &Ensemble,
    wanted: &Classification,
    trie: &TokenTrie,
    said: &Said,
) -> Vec<MemberLabels> {
    let of_labels: Vec<Vec<f64>> =
        (0..wanted.labels.len()).map(|label| said.of(label, trie).members).collect();
    let member = |(row, place): (usize, &usize)| {
        let log_likelihoods: Vec<f64> =
            of_labels.iter().filter_map(|members| members.get(row).copied()).collect();
        let log_probs = wanted.calibrations.get(*place)?.log_probs(&log_likelihoods);
        Some(MemberLabels {
            name: ensemble.names.get(*place)?.clone(),
            log_likelihoods,
            probabilities: log_probs.into_iter().map(f64::exp).collect(),
            weight: 0.0,
        })
    };
    said.participants.iter().enumerate().filter_map(member).collect()
}

/// What the rule makes of the members' distributions over labels, best first.
fn fused(
    wanted: &Classification,
    members: &[MemberLabels],
    weights: &[f64],
) -> Result<Vec<LabelProbability>, FuseError> {
    let count = wanted.labels.len();
    let logits: Vec<Vec<f32>> = members
        .iter()
        .map(|member| {
            member.probabilities.iter().map(|probability| probability.ln().max(LEAST) as f32).collect()
        })
        .collect();
    let mut rows = Vec::with_capacity(logits.len());
    for (place, (logits, weight)) in logits.iter().zip(weights).enumerate() {
        let row = Row::new(logits.as_slice(), chorus_simd::norm(logits), count);
        rows.push((*weight, row.map_err(|error| FuseError::Unsound { place, error })?));
    }
    let label = |id: u32, log_prob: f64, votes: Option<u32>| LabelProbability {
        name: wanted.labels.get(id as usize).cloned().unwrap_or_default(),
        probability: log_prob.exp(),
        votes,
    };
    Scratch::lent(|scratch| {
        Ok(match fuse(&wanted.fusing.fusion, &rows, scratch)? {
            Fused::Distribution(fused) => {
                fused.top(count).iter().map(|top| label(top.id, top.log_prob, None)).collect()
            }
            Fused::Winner(winner) => {
                winner.top(count).iter().map(|top| label(top.id, top.log_prob, Some(top.votes))).collect()
            }
        })
    })
}

/// Below any probability that f64 holds.
const LEAST: f64 = -750.0;
