//! `Predict`: the distribution after a prefix, fused and of each member.
//!
//! Knows nothing about how members are reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::{Candidate, MemberPrediction, PredictReply, RowFormat};
use chorus_text::Vocabulary;
use tonic::Status;

use super::deadline::Deadline;
use super::leaders::{self, Lead, Search};
use crate::ensemble::{Ensemble, fuse_status, step_status};
use crate::fusion::{self, certificate::Places, shares};
use crate::plan::{Ask, Plan};
use crate::request::Prediction;
use crate::roster::Roster;
use crate::session::{EnsembleSession, Rejoin};

pub(super) async fn predict(
    ensemble: Arc<Ensemble>,
    prediction: Prediction,
    vocabulary: Vocabulary,
    deadline: Deadline,
) -> Result<PredictReply, Status> {
    let vocabulary_size = vocabulary.len() as usize;
    let plan = prediction.plan(vocabulary_size);
    let roster = &ensemble.roster;
    let terms = ensemble.session_terms(plan, deadline.at());
    let terms = terms.allowing_degraded(prediction.allow_degraded).for_one_answer(prediction.prefix.len());
    let mut session = EnsembleSession::begin(roster, &vocabulary, terms, Rejoin::Never, &BTreeMap::new());
    let mut search = Search {
        fusion: prediction.fusion,
        weights: prediction.weights.clone(),
        places: Places::Leaders(prediction.top_n as usize),
        k: 0,
        log_threshold: None,
        vocabulary_size,
    };
    let lead = match plan {
        Plan::Certified { k, log_threshold } => {
            search = Search { k, log_threshold, ..search };
            leaders::find(&mut session, &prediction.prefix, &search).await?
        }
        Plan::Dense(format) => by_rows(&mut session, &prediction.prefix, &search, format).await?,
        // No prediction has these plans; rows answer everything.
        Plan::Targets | Plan::Drawn => {
            by_rows(&mut session, &prediction.prefix, &search, RowFormat::F32).await?
        }
    };
    reply(&prediction, roster, &vocabulary, &lead)
}

async fn by_rows(
    session: &mut EnsembleSession,
    prefix: &[u32],
    search: &Search,
    format: RowFormat,
) -> Result<Lead, Status> {
    let answers = session.step(prefix, &Ask::next_row(format)).await;
    leaders::lead_of_rows(session, answers.map_err(|error| step_status(&error))?, search).await
}

fn reply(
    prediction: &Prediction,
    roster: &Roster,
    vocabulary: &Vocabulary,
    lead: &Lead,
) -> Result<PredictReply, Status> {
    let rule = prediction.fusion.rule;
    let is_vote = !rule.yields_distribution();
    let candidates = lead.leaders.iter().map(|leader| Candidate {
        votes: is_vote.then_some(leader.votes),
        // Of all leaders the log-probability is known.
        ..written(leader.id, leader.log_prob.unwrap_or(f64::NEG_INFINITY), vocabulary)
    });
    let weights: Vec<f64> = lead.members.iter().map(|(index, _)| prediction.weights.of(*index)).collect();
    let shares = shares(rule, &weights).map_err(|error| fuse_status(error, &lead.participation))?;
    let member = |((index, tokens), weight): (&(usize, Vec<fusion::Candidate>), f64)| {
        let member = roster.members.get(*index)?;
        let tokens = tokens.iter();
        Some(MemberPrediction {
            name: member.name().to_owned(),
            candidates: tokens.map(|token| written(token.id, token.log_prob, vocabulary)).collect(),
            weight,
            start: roster.card(*index).and_then(|card| card.start),
        })
    };
    Ok(PredictReply {
        candidates: candidates.collect(),
        members: lead.members.iter().zip(shares).filter_map(member).collect(),
        rule: chorus_proto::v1::Rule::from(rule).into(),
        participation: Some(lead.participation.clone()),
    })
}

fn written(id: u32, log_prob: f64, vocabulary: &Vocabulary) -> Candidate {
    Candidate { id, text: vocabulary.decode(&[id]), probability: log_prob.exp(), votes: None }
}
