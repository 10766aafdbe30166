//! Rankings are the chain rule for every candidate, and what candidates share is read once.

use chorus_proto::v1::{FusionOptions, Normalization, RankCandidate, RankReply, RankRequest};
use tonic::Code;

use super::*;
use crate::fusion::Rule;
use crate::testing::scripted_replica::Act;
use crate::token_trie::TokenTrie;

const CONTEXT: [u32; 5] = [1, 7, 0, 3, 3];
const CANDIDATES: [&[u32]; 7] =
    [&[2, 6, 5], &[2, 6, 4, 4, 1], &[2], &[0], &[2, 6, 5, 1, 1, 3, 0, 2, 2, 7], &[2, 6, 5], &[0, 0, 0, 0]];

fn ranking(context: Option<&[u32]>, candidates: &[&[u32]]) -> RankRequest {
    let candidate = |tokens: &&[u32]| RankCandidate { continuation: ids(tokens), score: None };
    RankRequest {
        context: context.and_then(ids),
        candidates: candidates.iter().map(candidate).collect(),
        ..RankRequest::default()
    }
}

impl Stage {
    async fn rank(&self, request: RankRequest) -> Result<RankReply, Status> {
        Ok(self.service.rank(Request::new(request)).await?.into_inner())
    }

    /// log P(candidate | context) by these participants, in this process.
    fn log_prob_of(&self, participants: &[&str], context: &[u32], candidate: &[u32]) -> f64 {
        let participants: Vec<String> = participants.iter().map(|name| (*name).to_owned()).collect();
        let mut prefix = context.to_vec();
        let of_token = |token: &u32| {
            let log_prob = self.fused(&participants, &prefix, |fused| match fused {
                Fused::Distribution(distribution) => distribution.log_prob(*token).unwrap(),
                Fused::Winner(_) => unreachable!("a vote has no log-probabilities"),
            });
            prefix.push(*token);
            log_prob
        };
        candidate.iter().map(of_token).sum()
    }
}

fn assert_near(one: f64, other: f64) {
    assert!((one - other).abs() < 1e-9, "{one} {other}");
}

/// Whoever reads nothing twice, for all members together.
fn read_by(stage: &Stage) -> [usize; 3] {
    stage.members.each_ref().map(|member| member.feeds().iter().sum())
}

#[tokio::test]
async fn every_rule_ranks_by_the_chain_rule_and_reads_what_is_alike_once() {
    for rule in Rule::ALL.into_iter().filter(|rule| rule.yields_distribution()) {
        for context in [Some(&CONTEXT[..]), None] {
            let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
            let reply = stage.rank(ranking(context, &CANDIDATES)).await.unwrap();
            assert_eq!(reply.candidates.len(), CANDIDATES.len());
            assert!(reply.candidates.is_sorted_by(|one, next| one.score >= next.score));
            let before = context.unwrap_or_default();
            for ranked in &reply.candidates {
                let tokens = CANDIDATES[ranked.index as usize];
                assert_near(ranked.log_prob, stage.log_prob_of(&NAMES, before, tokens));
                assert_eq!((ranked.score, ranked.tokens as usize), (ranked.log_prob, tokens.len()));
                for (name, own) in NAMES.iter().zip(&ranked.member_log_probs) {
                    let averaged = Stage::new("").await;
                    assert_near(*own, averaged.log_prob_of(&[name], before, tokens));
                }
            }
            let place = |index| reply.candidates.iter().position(|ranked| ranked.index == index).unwrap();
            assert_eq!(place(0) + 1, place(5), "of equal ones the first comes first");
            let trie = TokenTrie::new(&CANDIDATES.map(<[u32]>::to_vec));
            let computed = before.len() + trie.tokens();
            assert_eq!(reply.computed_tokens as usize, computed);
            let tokens: usize = CANDIDATES.iter().map(|tokens| tokens.len()).sum();
            assert_eq!(reply.total_tokens as usize, before.len() * CANDIDATES.len() + tokens);
            assert_eq!(read_by(&stage), [computed; 3]);
            assert_eq!(reply.participation.unwrap().participants, NAMES);
            for member in &stage.members {
                member.until_idle().await;
            }
        }
    }
}

#[tokio::test]
async fn candidates_are_compared_by_what_the_request_says() {
    let stage = Stage::new("").await;
    let own = |index: usize| index as f64 / 3.0;
    let log_prob = |tokens: &[u32]| stage.log_prob_of(&NAMES, &CONTEXT, tokens);
    let prior = |tokens: &[u32]| stage.log_prob_of(&NAMES, &[4, 4], tokens);
    for by in [Normalization::Total, Normalization::PerToken, Normalization::Prior] {
        let mut request = ranking(Some(&CONTEXT), &CANDIDATES);
        request.normalization = by.into();
        request.prior_context = (by == Normalization::Prior).then(|| ids(&[4, 4])).flatten();
        request.scale = Some(0.7);
        request.top_n = Some(4);
        for (index, candidate) in request.candidates.iter_mut().enumerate() {
            candidate.score = Some(own(index));
        }
        let reply = stage.rank(request).await.unwrap();
        let expected = |index: usize| {
            let tokens = CANDIDATES[index];
            let normalised = match by {
                Normalization::PerToken => log_prob(tokens) / tokens.len() as f64,
                Normalization::Prior => log_prob(tokens) - prior(tokens),
                _ => log_prob(tokens),
            };
            0.7 * normalised + own(index)
        };
        let mut order: Vec<usize> = (0..CANDIDATES.len()).collect();
        order.sort_by(|one, other| expected(*other).total_cmp(&expected(*one)));
        let indices: Vec<usize> = reply.candidates.iter().map(|ranked| ranked.index as usize).collect();
        assert_eq!(indices, order[..4], "{by:?}");
        for ranked in &reply.candidates {
            assert_near(ranked.score, expected(ranked.index as usize));
            let of_prior = (by == Normalization::Prior).then(|| prior(CANDIDATES[ranked.index as usize]));
            assert_eq!(ranked.prior_log_prob.is_some(), of_prior.is_some());
            assert_near(ranked.prior_log_prob.unwrap_or(0.0), of_prior.unwrap_or(0.0));
        }
    }
}

#[tokio::test]
async fn a_member_that_is_lost_on_the_way_is_in_no_number() {
    for rule in ["weighted_average", "log_linear"] {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        let mut feeds = 0;
        stage.members[1].follow(move |_| {
            feeds += 1;
            if feeds == 6 { Act::Die } else { Act::Answer }
        });
        let reply = stage.rank(ranking(Some(&CONTEXT), &CANDIDATES)).await.unwrap();
        let participation = reply.participation.unwrap();
        assert_eq!(participation.participants, ["alto", "cello"], "{rule}");
        assert_eq!(participation.missing.len(), 1);
        for ranked in &reply.candidates {
            let tokens = CANDIDATES[ranked.index as usize];
            assert_near(ranked.log_prob, stage.log_prob_of(&["alto", "cello"], &CONTEXT, tokens));
            assert_eq!(ranked.member_log_probs.len(), 2);
        }
    }
}

#[tokio::test]
async fn below_the_quorum_nothing_is_ranked() {
    let stage = Stage::new("[quorum]\nmembers = 3").await;
    let mut feeds = 0;
    stage.members[1].follow(move |_| {
        feeds += 1;
        if feeds == 6 { Act::Die } else { Act::Answer }
    });
    let refusal = stage.rank(ranking(Some(&CONTEXT), &CANDIDATES)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert!(refusal.message().contains("bass (killed)"), "{}", refusal.message());
}

#[tokio::test]
async fn thousands_of_candidates_are_ranked_in_one_call() {
    let stage = Stage::new("").await;
    // All numbers of four digits in base 8, so that all prefixes are shared.
    let candidates: Vec<Vec<u32>> =
        (0..4096_u32).map(|number| (0..4).rev().map(|digit| (number >> (3 * digit)) & 7).collect()).collect();
    let candidates: Vec<&[u32]> = candidates.iter().map(Vec::as_slice).collect();
    let request = RankRequest { top_n: Some(3), ..ranking(Some(&CONTEXT), &candidates) };
    let reply = stage.rank(request).await.unwrap();
    assert_eq!(reply.computed_tokens, 5 + 8 + 64 + 512 + 4096);
    let best = candidates[reply.candidates[0].index as usize];
    assert_near(reply.candidates[0].log_prob, stage.log_prob_of(&NAMES, &CONTEXT, best));
    let sums = stage.members.each_ref().map(|member| member.feeds().iter().sum::<usize>());
    assert_eq!(sums, [reply.computed_tokens as usize; 3]);
    for member in &stage.members {
        member.until_idle().await;
    }
}

#[tokio::test]
async fn rankings_that_can_t_be_are_refused() {
    let stage = Stage::new("[limits]\nmax_candidates = 7\nmax_input_tokens = 30").await;
    let request = || ranking(Some(&CONTEXT), &CANDIDATES);
    let with_score = |score| {
        let mut request = request();
        request.candidates[2].score = Some(score);
        request
    };
    let vote =
        FusionOptions { rule: chorus_proto::v1::Rule::ThresholdVote.into(), ..FusionOptions::default() };
    for (request, message) in [
        (ranking(None, &[]), "candidates: there are 0; allowed: 1 to 7 (limits.max_candidates)"),
        (ranking(None, &[&[1][..]; 8]), "candidates: there are 8; allowed: 1 to 7 (limits.max_candidates)"),
        (
            ranking(None, &[&[1], &[]]),
            "candidates.continuation: number 1: it has 0 tokens; allowed: 1 to 30 (limits.max_input_tokens)",
        ),
        (
            ranking(None, &[&[1], &[2; 16], &[3; 16]]),
            "candidates.continuation: they have more than 30 tokens together; allowed: at most as many \
             (limits.max_input_tokens)",
        ),
        (
            with_score(f64::NAN),
            "candidates.score: that of candidate 2 is NaN; allowed: a finite number, or absent",
        ),
        (
            RankRequest { fusion: Some(vote), ..request() },
            "fusion.rule: threshold_vote has no distribution and so no log-likelihoods; allowed: another rule",
        ),
        (
            RankRequest { normalization: 9, ..request() },
            "normalization: 9 is none; allowed: 1 (total), 2 (per token), 3 (prior)",
        ),
        (
            RankRequest { prior_context: ids(&[1]), ..request() },
            "prior_context: only a prior has a context of its own; allowed: absent, or normalization 3 (prior)",
        ),
        (
            RankRequest { scale: Some(f64::INFINITY), ..request() },
            "scale: inf is not allowed; allowed: a finite number",
        ),
        (
            RankRequest { top_n: Some(0), ..request() },
            "top_n: 0 is not allowed; allowed: 1 to 7, the server's limit",
        ),
    ] {
        let refusal = stage.rank(request).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, message));
    }
}
