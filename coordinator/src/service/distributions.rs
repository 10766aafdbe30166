//! `Distributions`: what the ensemble and its members hold likely at every position of a text, piece by piece.
//!
//! Knows nothing about how members are reached, or how messages leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::{DistributionsReply, Participation, Rule};
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::distribution_rows::{Wanted, replies};
use super::opening::Opening;
use super::participation::expect;
use super::replies::{Replies, send};
use super::sound::make_of_rows;
use crate::ensemble::{Ensemble, NUMBERS_OF_A_LISTED_ONE, step_status};
use crate::plan::pieces;
use crate::request::Distributions;
use crate::session::{Rejoin, StepAnswers};
use crate::telemetry::{self, Method};

/// Sends every position. Dropped or finished, the session closes.
///
/// # Errors
/// The members can't go on, or nobody reads.
pub(super) async fn distributions(
    ensemble: &Arc<Ensemble>,
    wanted: Distributions,
    vocabulary: Vocabulary,
    call: Call,
    messages: &Replies<DistributionsReply>,
) -> Result<(), Status> {
    let vocabulary_size = vocabulary.len() as usize;
    let plan = wanted.plan();
    let fusing = wanted.fusing.clone();
    telemetry::asked(fusing.fusion.rule, plan.kind());
    let (rejoin, nobody) = (Rejoin::Never, BTreeMap::new());
    let opening = Opening { ensemble, vocabulary: &vocabulary, call, fusing: &fusing, plan, rejoin };
    let mut session = opening.begin_for_one_answer(wanted.tokens.len(), &nobody);
    let ask = plan.each();
    let most = session.max_feed_tokens(&ask);
    let mut weighting = fusing.weighting;
    let mut last = Participation::default();
    for piece in pieces(&ask, wanted.tokens.len(), vocabulary_size, most) {
        let first = piece.start;
        let tokens: Arc<[u32]> = wanted.tokens.get(piece).unwrap_or_default().into();
        let answers = session.step(&tokens, &ask).await.map_err(|error| step_status(&error))?;
        let numbers = tokens.len() * vocabulary_size * answers.answers.len();
        let each = if wanted.top_n.is_some() { 1 } else { NUMBERS_OF_A_LISTED_ONE };
        let of_piece = Wanted {
            fusion: fusing.fusion,
            weighting: weighting.clone(),
            top_n: wanted.top_n.map(|top_n| top_n as usize),
            temperature: wanted.temperature,
            members: wanted.members,
            vocabulary_size,
        };
        let work = move |answers: &StepAnswers| replies(of_piece.clone(), first, &tokens, answers);
        let ((replies, after), answers) = make_of_rows(&mut session, answers, numbers * each, work).await?;
        weighting = after;
        let mut participation = answers.participation.clone();
        expect(&mut participation, &ensemble.names, &weighting);
        // A slow reader keeps no rows.
        drop(answers);
        for reply in replies {
            let rule = Rule::from(fusing.fusion.rule).into();
            let reply = DistributionsReply { participation: Some(participation.clone()), rule, ..reply };
            send(messages, reply).await?;
        }
        last = participation;
    }
    // Nobody comes back in: whoever is missing anywhere is missing there.
    ensemble.common.answers.given(Method::Distributions, wanted.tokens.len(), &last);
    Ok(())
}
