//! `Predict`: the distribution after a prefix, fused and of each member.
//!
//! Knows nothing about how members are reached.

use std::sync::Arc;

use chorus_proto::v1::{Candidate, MemberPrediction, PredictReply, RowFormat};
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::leaders::{self, Lead, Search};
use super::opening::Opening;
use super::participation::expect;
use super::{evidence, fallback};
use crate::ensemble::{Ensemble, fuse_status, step_status};
use crate::fusion::{self, certificate::Places, shares};
use crate::plan::{Ask, Plan};
use crate::request::Prediction;
use crate::session::{EnsembleSession, Rejoin};
use crate::telemetry::{self, Method};
use crate::weights::Weighting;

pub(super) async fn predict(
    ensemble: Arc<Ensemble>,
    prediction: Prediction,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<PredictReply, Status> {
    let plan = prediction.plan(vocabulary.len() as usize).kind();
    telemetry::asked(prediction.fusing.fusion.rule, plan);
    let (answers, tokens) = (Arc::clone(&ensemble.common.answers), prediction.prefix.len());
    let reply = predict_by_anybody(ensemble, prediction, vocabulary, call).await?;
    if let Some(participation) = &reply.participation {
        answers.given(Method::Predict, tokens, participation);
    }
    Ok(reply)
}

async fn predict_by_anybody(
    ensemble: Arc<Ensemble>,
    prediction: Prediction,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<PredictReply, Status> {
    let failure = match predict_by(&ensemble, &prediction, &vocabulary, call).await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let fallback = fallback::instead(&ensemble, &prediction.fusing, failure)?;
    let prediction = Prediction { fusing: prediction.fusing.alone(), ..prediction };
    let mut reply = predict_by(&fallback, &prediction, &vocabulary, call).await?;
    fallback::mark(reply.participation.get_or_insert_default(), &ensemble);
    Ok(reply)
}

async fn predict_by(
    ensemble: &Ensemble,
    prediction: &Prediction,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<PredictReply, Status> {
    let vocabulary_size = vocabulary.len() as usize;
    let plan = prediction.plan(vocabulary_size);
    let opening =
        Opening { ensemble, vocabulary, call, fusing: &prediction.fusing, plan, rejoin: Rejoin::Never };
    let (mut session, mut prompt) = opening.begin_for_one_answer_after(&prediction.prefix);
    let fusing = &prediction.fusing;
    let mut prefix = prompt.read_to_parting(&mut session, &prediction.prefix).await?;
    let mut weighting = fusing.weighting.clone();
    if weighting.is_adaptive() {
        evidence::read(&mut session, prefix, &mut weighting, vocabulary_size).await?;
        prefix = &[];
    }
    let mut search = Search {
        fusion: fusing.fusion,
        weighting,
        places: Places::Leaders(prediction.top_n as usize),
        k: 0,
        log_threshold: None,
        vocabulary_size,
    };
    let lead = match plan {
        Plan::Certified { k, log_threshold } => {
            search = Search { k, log_threshold, ..search };
            leaders::find(&mut session, prefix, &search).await?
        }
        Plan::Dense(format) => by_rows(&mut session, prefix, &search, format).await?,
        // No prediction has these plans; rows answer everything.
        Plan::Targets | Plan::Drawn => by_rows(&mut session, prefix, &search, RowFormat::F32).await?,
    };
    prompt.keep(&mut session);
    let mut reply = reply(prediction, ensemble, vocabulary, &lead, &search.weighting)?;
    reply.cached_tokens = prompt.cached_tokens();
    expect(reply.participation.get_or_insert_default(), &ensemble.names, &fusing.weighting);
    Ok(reply)
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
    ensemble: &Ensemble,
    vocabulary: &Vocabulary,
    lead: &Lead,
    weighting: &Weighting,
) -> Result<PredictReply, Status> {
    let roster = &ensemble.roster;
    let rule = prediction.fusing.fusion.rule;
    let is_vote = !rule.yields_distribution();
    let candidates = lead.leaders.iter().map(|leader| Candidate {
        votes: is_vote.then_some(leader.votes),
        // Of all leaders the log-probability is known.
        ..written(leader.id, leader.log_prob.unwrap_or(f64::NEG_INFINITY), vocabulary)
    });
    let participants: Vec<usize> = lead.members.iter().map(|(index, _)| *index).collect();
    let weights = weighting.among(&participants).of_all(&participants);
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
        cached_tokens: 0,
    })
}

fn written(id: u32, log_prob: f64, vocabulary: &Vocabulary) -> Candidate {
    Candidate { id, text: vocabulary.decode(&[id]), probability: log_prob.exp(), votes: None }
}
