//! `Score`: the chain rule over a whole input, piece by piece.
//!
//! Knows nothing about how members are reached. A member that is lost on the way stays out, and nothing of it remains in
//! the result: the numbers are those of the members that scored the whole input.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::{self, MemberScore, Participation, ScoreReply, TokenScore, VoteScore};
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::fallback;
use super::leaders::{self, Search};
use super::opening::Opening;
use super::participation::expect;
use super::score_columns::{Columns, FusedToken};
use super::sound::make_of_rows;
use crate::ensemble::{Ensemble, NUMBERS_OF_A_LISTED_ONE, compute, fuse_status, step_status};
use crate::fusion::certificate::Places;
use crate::fusion::{FuseError, shares};
use crate::plan::{Plan, pieces};
use crate::request::Scoring;
use crate::roster::Roster;
use crate::session::{Rejoin, StepAnswers};
use crate::telemetry::{self, Method};
use crate::weights::Weighting;

pub(super) async fn score(
    ensemble: Arc<Ensemble>,
    scoring: Scoring,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<ScoreReply, Status> {
    let plan = scoring.plan(vocabulary.len() as usize).kind();
    telemetry::asked(scoring.fusing.fusion.rule, plan);
    let answers = Arc::clone(&ensemble.common.answers);
    let reply = score_by_anybody(ensemble, scoring, vocabulary, call).await?;
    answers.scored(plan, reply.tokens as usize);
    if let Some(participation) = &reply.participation {
        answers.given(Method::Score, reply.tokens as usize, participation);
    }
    Ok(reply)
}

async fn score_by_anybody(
    ensemble: Arc<Ensemble>,
    scoring: Scoring,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<ScoreReply, Status> {
    let scoring = Arc::new(scoring);
    let failure = match score_by(&ensemble, &scoring, &vocabulary, call).await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let fallback = fallback::instead(&ensemble, &scoring.fusing, failure)?;
    let scoring = Arc::new(Scoring { fusing: scoring.fusing.alone(), ..Scoring::clone(&scoring) });
    let mut reply = score_by(&fallback, &scoring, &vocabulary, call).await?;
    fallback::mark(reply.participation.get_or_insert_default(), &ensemble);
    Ok(reply)
}

async fn score_by(
    ensemble: &Arc<Ensemble>,
    scoring: &Arc<Scoring>,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<ScoreReply, Status> {
    let mut barred = BTreeMap::new();
    let (columns, mut participation) = loop {
        if let Some(scored) = pass(ensemble, scoring, vocabulary, call, &mut barred).await? {
            break scored;
        }
    };
    expect(&mut participation, &ensemble.names, &scoring.fusing.weighting);
    let (roster, vocabulary, scoring) =
        (Arc::clone(&ensemble.roster), vocabulary.clone(), Arc::clone(scoring));
    let missing = participation.clone();
    let numbers = scoring.tokens.len() * (columns.members.len() + 1) * NUMBERS_OF_A_LISTED_ONE;
    let reply = compute(numbers, move || reply(&scoring, &roster, &vocabulary, columns, participation));
    reply.await?.map_err(|error| fuse_status(error, &missing))
}

/// One scoring of the input. `None` where a member was lost that is in fused numbers already: it is barred now, and the
/// input has to be scored again without it. That happens at most once for each member.
async fn pass(
    ensemble: &Arc<Ensemble>,
    scoring: &Arc<Scoring>,
    vocabulary: &Vocabulary,
    call: Call,
    barred: &mut BTreeMap<usize, String>,
) -> Result<Option<(Columns, Participation)>, Status> {
    let vocabulary_size = vocabulary.len() as usize;
    let plan = scoring.plan(vocabulary_size);
    let ask = plan.each();
    let mut session =
        opening(ensemble, scoring, vocabulary, call).begin_for_one_answer(scoring.tokens.len(), barred);
    let most = session.max_feed_tokens(&ask);
    let mut columns = Columns::default();
    let mut participation = Participation::default();
    for piece in pieces(&ask, scoring.tokens.len(), vocabulary_size, most) {
        let tokens: Arc<[u32]> = scoring.tokens.get(piece).unwrap_or_default().into();
        let answers = session.step(&tokens, &ask).await;
        let answers = answers.map_err(|error| step_status(&error))?;
        let numbers = ask.answer_bytes(tokens.len(), vocabulary_size) / size_of::<f32>();
        let each = if matches!(plan, Plan::Dense(_)) { 1 } else { NUMBERS_OF_A_LISTED_ONE };
        let (numbers, of_piece) = (numbers * answers.answers.len() * each, Arc::clone(scoring));
        let read =
            move |answers: &StepAnswers| Columns::read(&of_piece.fusing, &tokens, vocabulary_size, answers);
        let (next, answers) = make_of_rows(&mut session, answers, numbers, read).await?;
        participation = answers.participation;
        if !columns.continues_with(&next) {
            bar(&ensemble.roster, &participation, barred);
            return Ok(None);
        }
        columns.append(next);
    }
    drop(session);
    let settled = settle(ensemble, scoring, vocabulary, call, &mut columns, &participation, barred).await?;
    Ok(settled.then_some((columns, participation)))
}

/// Finds the winners at the positions where the members' likeliest tokens left them open: the text is read again up to
/// each of them. False where a member was lost on the way: it is barred now.
async fn settle(
    ensemble: &Arc<Ensemble>,
    scoring: &Scoring,
    vocabulary: &Vocabulary,
    call: Call,
    columns: &mut Columns,
    participation: &Participation,
    barred: &mut BTreeMap<usize, String>,
) -> Result<bool, Status> {
    let vocabulary_size = vocabulary.len() as usize;
    let (open, plan) = (columns.open_positions(), scoring.plan(vocabulary_size));
    let Plan::Certified { k, log_threshold } = plan else {
        return Ok(true);
    };
    if open.is_empty() {
        return Ok(true);
    }
    let search = Search {
        fusion: scoring.fusing.fusion,
        weighting: scoring.fusing.weighting.clone(),
        places: Places::Winner,
        k,
        log_threshold,
        vocabulary_size,
    };
    // Whoever is not in the numbers has no say in who won.
    let mut absent = barred.clone();
    bar(&ensemble.roster, participation, &mut absent);
    let mut session = opening(ensemble, scoring, vocabulary, call).begin(&absent);
    let mut read = 0;
    for position in open {
        let tokens = scoring.tokens.get(read..position).unwrap_or_default();
        let lead = leaders::find(&mut session, tokens, &search).await?;
        read = position;
        if lead.participation.participants != participation.participants {
            bar(&ensemble.roster, &lead.participation, barred);
            return Ok(false);
        }
        let winner = lead.leaders.first().map(|leader| leader.id);
        columns.settle(position, winner == scoring.tokens.get(position).copied());
    }
    Ok(true)
}

fn opening<'a>(
    ensemble: &'a Ensemble,
    scoring: &'a Scoring,
    vocabulary: &'a Vocabulary,
    call: Call,
) -> Opening<'a> {
    let plan = scoring.plan(vocabulary.len() as usize);
    Opening { ensemble, vocabulary, call, fusing: &scoring.fusing, plan, rejoin: Rejoin::Never }
}

fn bar(roster: &Roster, participation: &Participation, barred: &mut BTreeMap<usize, String>) {
    for (index, member) in roster.members.iter().enumerate() {
        let missing = participation.missing.iter();
        if let Some(missing) = missing.into_iter().find(|missing| missing.name == member.name()) {
            barred.insert(index, missing.reason.clone());
        }
    }
}

fn reply(
    scoring: &Scoring,
    roster: &Roster,
    vocabulary: &Vocabulary,
    mut columns: Columns,
    participation: Participation,
) -> Result<ScoreReply, FuseError> {
    let weighting = columns.finish(&scoring.fusing)?;
    let log_prob = total(&columns.fused);
    let tokens = scoring.tokens.len();
    Ok(ScoreReply {
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        log_prob,
        perplexity: log_prob.map(|log_prob| perplexity(log_prob, tokens)),
        members: member_scores(scoring, &weighting, roster, &columns)?,
        token_scores: if scoring.per_token {
            token_scores(&scoring.tokens, vocabulary, &columns)
        } else {
            Vec::new()
        },
        votes: votes(&columns.fused),
        participation: Some(participation),
        rule: v1::Rule::from(scoring.fusing.fusion.rule).into(),
    })
}

fn member_scores(
    scoring: &Scoring,
    weighting: &Weighting,
    roster: &Roster,
    columns: &Columns,
) -> Result<Vec<MemberScore>, FuseError> {
    let participants = columns.participants();
    let weights = weighting.among(&participants).of_all(&participants);
    let shares = shares(scoring.fusing.fusion.rule, &weights)?;
    let score = |((index, log_probs), weight): ((&usize, &Vec<f64>), f64)| {
        let log_prob = log_probs.iter().sum();
        Some(MemberScore {
            name: roster.members.get(*index)?.name().to_owned(),
            log_prob,
            perplexity: perplexity(log_prob, log_probs.len()),
            start: roster.card(*index).and_then(|card| card.start),
            weight,
        })
    };
    Ok(columns.members.iter().zip(shares).filter_map(score).collect())
}

fn token_scores(tokens: &[u32], vocabulary: &Vocabulary, columns: &Columns) -> Vec<TokenScore> {
    let mut decoder = vocabulary.decoder();
    let rows = tokens.iter().zip(&columns.fused).enumerate();
    let mut scores: Vec<TokenScore> = rows
        .map(|(position, (id, fused))| TokenScore {
            id: *id,
            text: decoder.push(*id).unwrap_or_default(),
            log_prob: fused.log_prob(),
            member_log_probs: columns
                .members
                .values()
                .filter_map(|column| column.get(position).copied())
                .collect(),
            votes: fused.votes().cloned(),
            winner: fused.winner(),
        })
        .collect();
    // Text that no later token completes belongs to the last one.
    if let (Some(last), Some(rest)) = (scores.last_mut(), decoder.flush()) {
        last.text.push_str(&rest);
    }
    scores
}

fn total(fused: &[FusedToken]) -> Option<f64> {
    fused.iter().map(FusedToken::log_prob).sum()
}

fn votes(fused: &[FusedToken]) -> Option<VoteScore> {
    let mut score = VoteScore::default();
    for token in fused {
        score.winners += u32::from(token.winner()?);
        score.votes += u64::from(token.votes()?.count);
    }
    Some(score)
}

fn perplexity(log_prob: f64, tokens: usize) -> f64 {
    (-log_prob / tokens as f64).exp()
}

impl FusedToken {
    pub(super) fn log_prob(&self) -> Option<f64> {
        match self {
            Self::LogProb(log_prob) => Some(*log_prob),
            Self::Vote { .. } => None,
        }
    }

    fn votes(&self) -> Option<&v1::Votes> {
        match self {
            Self::LogProb(_) => None,
            Self::Vote { votes, .. } => Some(votes),
        }
    }

    fn winner(&self) -> Option<bool> {
        match self {
            Self::LogProb(_) => None,
            Self::Vote { winner, .. } => *winner,
        }
    }
}
