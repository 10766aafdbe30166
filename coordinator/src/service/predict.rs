//! `Predict`: the distribution after a prefix, fused and of each member.
//!
//! Knows nothing about how members are reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::{Candidate, MemberPrediction, PredictReply};
use chorus_text::Vocabulary;
use tonic::Status;

use crate::ensemble::{Ensemble, compute, fuse_status, step_status};
use crate::fusion::{self, FuseError, Fused, shares};
use crate::request::Prediction;
use crate::roster::Roster;
use crate::session::{EnsembleSession, Rejoin, StepAnswers};

pub(super) async fn predict(
    ensemble: &Arc<Ensemble>,
    prediction: Prediction,
    vocabulary: Vocabulary,
) -> Result<PredictReply, Status> {
    let roster = Arc::clone(&ensemble.roster);
    let mut session =
        EnsembleSession::begin(&roster, &vocabulary, ensemble.patience(), Rejoin::Never, &BTreeMap::new());
    let answers = session.step(&prediction.prefix, prediction.plan().last).await;
    let answers = answers.map_err(|error| step_status(&error))?;
    let participation = answers.participation.clone();
    let numbers = vocabulary.len() as usize * answers.answers.len();
    let reply = compute(numbers, move || reply(&prediction, &roster, &vocabulary, answers));
    reply.await?.map_err(|error| fuse_status(error, &participation))
}

fn reply(
    prediction: &Prediction,
    roster: &Roster,
    vocabulary: &Vocabulary,
    answers: StepAnswers,
) -> Result<PredictReply, FuseError> {
    let top_n = prediction.top_n as usize;
    let candidates = match answers.fuse(0, &prediction.fusion, &prediction.weights)? {
        Fused::Distribution(distribution) => likeliest(&distribution.top(top_n), vocabulary),
        Fused::Winner(winner) => {
            let candidates = winner.top(top_n).into_iter();
            let candidate = |candidate: fusion::VoteCandidate| Candidate {
                votes: Some(candidate.votes),
                ..written(candidate.id, candidate.log_prob, vocabulary)
            };
            candidates.map(candidate).collect()
        }
    };
    let weights: Vec<f64> =
        answers.participants().into_iter().map(|index| prediction.weights.of(index)).collect();
    let rule = prediction.fusion.rule;
    let members = answers.rows(0).into_iter().zip(shares(rule, &weights)?);
    let member = |((index, row), weight): ((usize, fusion::Row<'_>), f64)| {
        let seat = roster.seats.get(index)?;
        Some(MemberPrediction {
            name: seat.member.name().to_owned(),
            candidates: likeliest(&row.distribution().top(top_n), vocabulary),
            weight,
            start: roster.card(index).and_then(|card| card.start),
        })
    };
    Ok(PredictReply {
        candidates,
        members: members.filter_map(member).collect(),
        rule: chorus_proto::v1::Rule::from(rule).into(),
        participation: Some(answers.participation),
    })
}

fn likeliest(candidates: &[fusion::Candidate], vocabulary: &Vocabulary) -> Vec<Candidate> {
    let candidates = candidates.iter();
    candidates.map(|candidate| written(candidate.id, candidate.log_prob, vocabulary)).collect()
}

fn written(id: u32, log_prob: f64, vocabulary: &Vocabulary) -> Candidate {
    Candidate { id, text: vocabulary.decode(&[id]), probability: log_prob.exp(), votes: None }
}
