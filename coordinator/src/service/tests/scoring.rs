//! Scores are the chain rule over the participants that scored the whole input.

use chorus_proto::v1::{FusionOptions, ScoreRequest};

use super::*;
use crate::fusion::Rule;
use crate::testing::scripted_replica::Act;

const TOKENS: [u32; 11] = [1, 7, 0, 3, 3, 2, 6, 5, 4, 1, 0];

fn score(tokens: &[u32]) -> ScoreRequest {
    ScoreRequest { input: ids(tokens), fusion: None, per_token: true }
}

/// What the rule says of each token, in this process.
fn expected(stage: &Stage, participants: &[String]) -> Vec<f64> {
    let log_prob = |position: usize| {
        stage.fused(participants, &TOKENS[..position], |fused| match fused {
            Fused::Distribution(distribution) => distribution.log_prob(TOKENS[position]).unwrap(),
            Fused::Winner(_) => unreachable!("a vote has no log-probabilities"),
        })
    };
    (0..TOKENS.len()).map(log_prob).collect()
}

#[tokio::test]
async fn every_rule_with_a_distribution_scores_by_the_chain_rule() {
    for rule in Rule::ALL.into_iter().filter(|rule| rule.yields_distribution()) {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        let reply = stage.score(score(&TOKENS)).await.unwrap();
        let expected = expected(&stage, &NAMES.map(str::to_owned));
        let got: Vec<f64> = reply.token_scores.iter().map(|token| token.log_prob.unwrap()).collect();
        assert_eq!(got, expected, "{rule}");
        let total: f64 = expected.iter().sum();
        assert_eq!(reply.log_prob, Some(total));
        assert_eq!(reply.perplexity, Some((-total / 11.0).exp()));
        assert_eq!(reply.tokens, 11);
        assert!(reply.votes.is_none());
        for (position, member) in reply.members.iter().enumerate() {
            let sum: f64 = reply.token_scores.iter().map(|token| token.member_log_probs[position]).sum();
            assert_eq!(member.log_prob, sum);
            assert!(member.start.is_some());
        }
        let text: String = reply.token_scores.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(text, vocabulary().decode(&TOKENS));
    }
}

/// What was asked about the tokens of a piece is answered about the same tokens, wherever the reading begins again.
#[tokio::test]
async fn members_that_have_all_forgotten_a_score_read_it_again_and_score_the_same() {
    for rule in Rule::ALL {
        let toml = format!("[fusion]\nrule = '{rule}'");
        let undisturbed = Stage::new(&toml).await.score(score(&TOKENS)).await.unwrap();
        // Pieces are of three tokens where rows are asked for, and of four otherwise.
        for at in [3, 4, 6, 8, 9, 11] {
            let stage = Stage::new(&toml).await;
            stage.forget_once(at);
            assert_eq!(stage.score(score(&TOKENS)).await.unwrap(), undisturbed, "{rule}, at {at}");
        }
    }
}

#[tokio::test]
async fn a_vote_scores_by_votes() {
    let stage = Stage::new("[fusion]\nrule = 'threshold_vote'\nthreshold = 0.2").await;
    let reply = stage.score(score(&TOKENS)).await.unwrap();
    assert_eq!((reply.log_prob, reply.perplexity), (None, None));
    let mut winners = 0;
    let mut votes = 0;
    for (position, token) in reply.token_scores.iter().enumerate() {
        let participants = NAMES.map(str::to_owned);
        let (wins, votes_for) = stage.fused(&participants, &TOKENS[..position], |fused| match fused {
            Fused::Winner(winner) => (winner.id == TOKENS[position], winner.votes_for(TOKENS[position])),
            Fused::Distribution(_) => unreachable!("a vote yields a winner"),
        });
        assert_eq!(token.winner, Some(wins));
        assert_eq!(token.votes.as_ref().unwrap().count, votes_for);
        winners += u32::from(wins);
        votes += u64::from(votes_for);
    }
    let score = reply.votes.unwrap();
    assert_eq!((score.winners, score.votes), (winners, votes));
    assert!(reply.members.iter().all(|member| member.log_prob < 0.0));
}

#[tokio::test]
async fn a_member_lost_in_mid_score_leaves_no_trace_in_the_numbers() {
    for rule in [Rule::WeightedAverage, Rule::LogLinear] {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        stage.members[1].follow(|read| if read > 8 { Act::Die } else { Act::Answer });
        let reply = stage.score(score(&TOKENS)).await.unwrap();
        let survivors = ["alto".to_owned(), "cello".to_owned()];
        let got: Vec<f64> = reply.token_scores.iter().map(|token| token.log_prob.unwrap()).collect();
        assert_eq!(got, expected(&stage, &survivors), "{rule}");
        let participation = reply.participation.unwrap();
        assert_eq!(participation.participants, survivors);
        assert_eq!(participation.missing[0].name, "bass");
        assert_eq!(participation.missing[0].reason, "killed");
        let members: Vec<_> =
            reply.members.iter().map(|member| (member.name.as_str(), member.weight)).collect();
        let shares = crate::weights::shares(&[2.0, 3.0]).unwrap();
        assert_eq!(members, [("alto", shares[0]), ("cello", shares[1])]);
    }
}

#[tokio::test]
async fn a_score_that_loses_everybody_is_unavailable() {
    let stage = Stage::new("").await;
    for member in &stage.members {
        member.follow(|read| if read > 4 { Act::Die } else { Act::Answer });
    }
    let error = stage.score(score(&TOKENS)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    for name in NAMES {
        assert!(error.message().contains(name), "{}", error.message());
    }
}

#[tokio::test]
async fn a_request_can_bring_its_own_rule_and_weights() {
    let stage = Stage::new("").await;
    let mut request = score(&TOKENS);
    request.fusion = Some(FusionOptions {
        rule: chorus_proto::v1::Rule::LogLinear.into(),
        threshold: None,
        weights: NAMES.iter().map(|name| ((*name).to_owned(), f64::from(*name == "bass"))).collect(),
        ..FusionOptions::default()
    });
    let reply = stage.score(request).await.unwrap();
    let bass = &reply.members[1];
    assert_eq!((bass.weight, Some(bass.log_prob)), (1.0, reply.log_prob));
    assert_eq!(reply.rule(), chorus_proto::v1::Rule::LogLinear);
}
