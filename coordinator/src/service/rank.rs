//! `Rank`: candidates for a context, the best first.
//!
//! Knows nothing about how members are reached, or how what candidates share is read once.

use std::sync::Arc;

use chorus_proto::v1::{RankReply, RankedCandidate, Rule};
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::fallback;
use super::forest::{AT_A_TIME, Forest, Said, Sums};
use super::participation::expect;
use crate::ensemble::Ensemble;
use crate::request::Ranking;
use crate::telemetry::{self, Method};
use crate::token_trie::TokenTrie;

pub(super) async fn rank(
    ensemble: Arc<Ensemble>,
    ranking: Ranking,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<RankReply, Status> {
    let plan = ranking.plan(vocabulary.len() as usize).kind();
    telemetry::asked(ranking.fusing.fusion.rule, plan);
    let reply = rank_by_anybody(&ensemble, ranking, &vocabulary, call).await?;
    if let Some(participation) = &reply.participation {
        ensemble.common.answers.given(Method::Rank, reply.computed_tokens as usize, participation);
    }
    Ok(reply)
}

async fn rank_by_anybody(
    ensemble: &Arc<Ensemble>,
    ranking: Ranking,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<RankReply, Status> {
    let trie = TokenTrie::new(&ranking.candidates);
    let _branches = ensemble.common.branches(trie.len().min(AT_A_TIME)).await;
    let failure = match rank_by(ensemble, &ranking, &trie, vocabulary, call).await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let fallback = fallback::instead(ensemble, &ranking.fusing, failure)?;
    let ranking = Ranking { fusing: ranking.fusing.alone(), ..ranking };
    let mut reply = rank_by(&fallback, &ranking, &trie, vocabulary, call).await?;
    fallback::mark(reply.participation.get_or_insert_default(), ensemble);
    Ok(reply)
}

async fn rank_by(
    ensemble: &Arc<Ensemble>,
    ranking: &Ranking,
    trie: &TokenTrie,
    vocabulary: &Vocabulary,
    call: Call,
) -> Result<RankReply, Status> {
    let forest = Forest {
        ensemble,
        vocabulary,
        call,
        fusing: &Arc::new(ranking.fusing.clone()),
        plan: ranking.plan(vocabulary.len() as usize),
        sequences: &ranking.candidates,
        trie,
    };
    let contexts = ranking.contexts();
    let said = forest.read(&contexts).await?;
    let mut participation = said.first().map(|said| said.participation.clone()).unwrap_or_default();
    expect(&mut participation, &ensemble.names, &ranking.fusing.weighting);
    let tokens: usize = ranking.candidates.iter().map(Vec::len).sum();
    let of_contexts = |each: usize| contexts.iter().map(|context| context.len() * each).sum::<usize>();
    let cached: usize = said.iter().map(|said| said.cached_tokens).sum();
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    Ok(RankReply {
        candidates: ranked(ranking, trie, &said),
        participation: Some(participation),
        rule: Rule::from(ranking.fusing.fusion.rule).into(),
        computed_tokens: count(of_contexts(1) + contexts.len() * trie.tokens() - cached),
        total_tokens: count(of_contexts(ranking.candidates.len()) + contexts.len() * tokens),
        cached_tokens: count(cached),
    })
}

fn ranked(ranking: &Ranking, trie: &TokenTrie, said: &[Said]) -> Vec<RankedCandidate> {
    let candidate = |(index, tokens): (usize, &Vec<u32>)| {
        let mut of_contexts = said.iter().map(|said| said.of(index, trie));
        let Sums { fused, members } = of_contexts.next().unwrap_or_default();
        let prior = of_contexts.next().map(|prior| prior.fused);
        let own = ranking.scores.get(index).copied().unwrap_or(0.0);
        RankedCandidate {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            score: ranking.scale * ranking.by.normalised(fused, tokens.len(), prior) + own,
            log_prob: fused,
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            prior_log_prob: prior,
            member_log_probs: members,
        }
    };
    let mut ranked: Vec<RankedCandidate> = ranking.candidates.iter().enumerate().map(candidate).collect();
    // Stable: of equal ones the first of the request.
    ranked.sort_by(|one, other| other.score.total_cmp(&one.score));
    ranked.truncate(ranking.top_n);
    ranked
}
