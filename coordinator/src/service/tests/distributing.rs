//! Distributions of every position, held against fusion in this process.

use chorus_proto::v1::{
    DistributionsReply, DistributionsRequest, FusionOptions, Rule, TokenizerChunk, TokenizerRequest,
};
use tonic::Code;

use super::*;

/// One position as a client reads it.
struct Position {
    token: u32,
    ids: Vec<u32>,
    log_probs: Vec<f32>,
    members: Vec<Vec<f32>>,
    rest: f32,
}

async fn distributions(
    stage: &Stage,
    request: DistributionsRequest,
) -> Result<Vec<DistributionsReply>, Status> {
    let stream = stage.service.distributions(Request::new(request)).await?.into_inner();
    stream.collect::<Vec<_>>().await.into_iter().collect()
}

fn positions(replies: &[DistributionsReply], vocabulary_size: u32) -> Vec<Position> {
    let mut positions = Vec::new();
    for reply in replies {
        assert_eq!(reply.first as usize, positions.len(), "positions come in order");
        let floats = |bytes: &[u8]| {
            bytes
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect::<Vec<f32>>()
        };
        let ids: Vec<u32> =
            reply.ids.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let (log_probs, mut start) = (floats(&reply.log_probs), 0);
        let members: Vec<Vec<f32>> = reply.members.iter().map(|member| floats(&member.log_probs)).collect();
        for (row, token) in reply.tokens.iter().enumerate() {
            let count = reply.counts.get(row).copied().unwrap_or(vocabulary_size) as usize;
            let range = start..start + count;
            let all: Vec<u32> = (0..vocabulary_size).collect();
            positions.push(Position {
                token: *token,
                ids: if reply.counts.is_empty() { all } else { ids[range.clone()].to_vec() },
                log_probs: log_probs[range.clone()].to_vec(),
                members: members.iter().map(|member| member[range.clone()].to_vec()).collect(),
                rest: reply.rest[row],
            });
            start += count;
        }
        assert_eq!((start, reply.rest.len()), (log_probs.len(), reply.tokens.len()), "nothing is left over");
    }
    positions
}

/// The log-probabilities of all tokens at a temperature, by the formula.
fn expected(stage: &Stage, prefix: &[u32], temperature: f64) -> Vec<f64> {
    let names = NAMES.map(str::to_owned);
    stage.fused(&names, prefix, |fused| match fused {
        Fused::Distribution(distribution) => {
            let powers: Vec<f64> = distribution.log_probs().map(|log_prob| log_prob / temperature).collect();
            let log_sum = powers.iter().map(|power| power.exp()).sum::<f64>().ln();
            powers.into_iter().map(|power| power - log_sum).collect()
        }
        Fused::Winner(_) => unreachable!(),
    })
}

const TOKENS: [u32; 10] = [1, 7, 0, 3, 3, 2, 5, 6, 4, 1];

#[tokio::test]
async fn every_position_has_the_distribution_before_its_token() {
    for rule in [Rule::WeightedAverage, Rule::LogLinear, Rule::LogitMax] {
        let stage =
            Stage::new(&format!("[fusion]\nrule = '{}'", rule.as_str_name()[5..].to_lowercase())).await;
        for (temperature, members) in
            [(None, false), (Some(2.0), true), (Some(0.2), true), (Some(4.0), false)]
        {
            let request =
                DistributionsRequest { input: ids(&TOKENS), temperature, members, ..Default::default() };
            let replies = distributions(&stage, request).await.unwrap();
            assert!(replies.iter().all(|reply| reply.rule() == rule));
            let positions = positions(&replies, 8);
            assert_eq!(positions.iter().map(|position| position.token).collect::<Vec<_>>(), TOKENS);
            for (place, position) in positions.iter().enumerate() {
                let expected = expected(&stage, &TOKENS[..place], temperature.unwrap_or(1.0));
                for (found, expected) in position.log_probs.iter().zip(&expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 3e-6 * expected.abs().max(1.0),
                        "{found} {expected}"
                    );
                }
                assert_eq!(position.rest, 0.0);
                assert_eq!(position.members.len(), if members { 3 } else { 0 });
                for (member, found) in stage.members.iter().zip(&position.members) {
                    let row = member.model.rows([&TOKENS[..place]].into_iter());
                    let row = row.row(0).unwrap();
                    let own: Vec<f32> = (0..8).map(|id| row.log_prob(id).unwrap() as f32).collect();
                    assert_eq!(*found, own, "a member's own are as they are");
                }
            }
        }
    }
}

#[tokio::test]
async fn lists_have_the_likeliest_of_everybody_and_the_rest_is_what_is_left() {
    let vocabulary = large_vocabulary();
    let stage = Stage::with(Style::Language, &vocabulary, "").await;
    for members in [false, true] {
        let request =
            DistributionsRequest { input: ids(&TOKENS), top_n: Some(5), members, ..Default::default() };
        let positions = positions(&distributions(&stage, request).await.unwrap(), vocabulary.len());
        assert_eq!(positions.len(), TOKENS.len());
        for (place, position) in positions.iter().enumerate() {
            let expected = expected(&stage, &TOKENS[..place], 1.0);
            assert!(position.ids.is_sorted_by(|one, other| one < other));
            let mut listed = 0.0;
            for (id, found) in position.ids.iter().zip(&position.log_probs) {
                assert!((f64::from(*found) - expected[*id as usize]).abs() < 1e-5);
                listed += expected[*id as usize].exp();
            }
            assert!((f64::from(position.rest) - (1.0 - listed)).abs() < 1e-6);
            let mut order: Vec<usize> = (0..expected.len()).collect();
            order.sort_by(|one, other| expected[*other].total_cmp(&expected[*one]));
            assert!(order[..5].iter().all(|id| position.ids.contains(&(*id as u32))));
            if members {
                for member in &stage.members {
                    let row = member.model.rows([&TOKENS[..place]].into_iter());
                    let top = row.row(0).unwrap().top(5);
                    assert!(top.iter().all(|candidate| position.ids.contains(&candidate.id)));
                }
            } else {
                assert_eq!(position.ids.len(), 5);
            }
        }
    }
}

#[tokio::test]
async fn a_long_text_is_many_messages_of_a_bounded_size() {
    let vocabulary = large_vocabulary();
    let stage = Stage::with(Style::Noise, &vocabulary, "").await;
    let tokens: Vec<u32> = (0..200).map(|place| place * 7 % 1100).collect();
    let request = DistributionsRequest { input: ids(&tokens), members: true, ..Default::default() };
    let replies = distributions(&stage, request).await.unwrap();
    assert!(replies.len() > 4);
    for reply in &replies {
        let bytes =
            reply.log_probs.len() + reply.members.iter().map(|member| member.log_probs.len()).sum::<usize>();
        assert!(bytes <= 1024 * 1024, "{bytes}");
        assert_eq!(reply.participation.as_ref().unwrap().participants, NAMES);
    }
    assert_eq!(positions(&replies, 1100).len(), 200);
}

#[tokio::test]
async fn who_counts_tokens_can_have_the_tokenizer() {
    let vocabulary = large_vocabulary();
    let stage = Stage::with(Style::Noise, &vocabulary, "").await;
    let chunks = stage.service.tokenizer(Request::new(TokenizerRequest {})).await.unwrap().into_inner();
    let chunks: Vec<TokenizerChunk> = chunks.map(Result::unwrap).collect().await;
    let json = chunks.iter().flat_map(|chunk| chunk.data.iter().copied()).collect::<Vec<u8>>();
    assert_eq!(Vocabulary::from_json(&json).unwrap().fingerprint(), vocabulary.fingerprint());
    let nobody = Stage::before_anybody_came("");
    let error = nobody.service.tokenizer(Request::new(TokenizerRequest {})).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn they_can_follow_the_text() {
    let stage = Stage::new("").await;
    let fusion = Some(FusionOptions { adaptive: true, ..FusionOptions::default() });
    let request = DistributionsRequest { input: ids(&TOKENS), fusion: fusion.clone(), ..Default::default() };
    let positions = positions(&distributions(&stage, request).await.unwrap(), 8);
    let request = ScoreRequest { input: ids(&TOKENS), fusion, per_token: true };
    let reply = stage.score(request).await.unwrap();
    for (position, score) in positions.iter().zip(&reply.token_scores) {
        let found = position.log_probs[score.id as usize];
        assert!((f64::from(found) - score.log_prob.unwrap()).abs() < 1e-6);
    }
}

#[tokio::test]
async fn who_is_lost_is_not_in_the_rows_that_follow() {
    let stage = Stage::new("").await;
    stage.members[1].follow(|read| if read > 5 { Act::Die } else { Act::Answer });
    let request = DistributionsRequest { input: ids(&TOKENS), members: true, ..Default::default() };
    let replies = distributions(&stage, request.clone()).await.unwrap();
    let took_part: Vec<usize> =
        replies.iter().map(|reply| reply.participation.as_ref().unwrap().participants.len()).collect();
    assert!(took_part.is_sorted_by(|before, after| before >= after), "{took_part:?}");
    assert_eq!((took_part[0], took_part[took_part.len() - 1]), (3, 2));
    for reply in &replies {
        let names: Vec<&String> = reply.members.iter().map(|member| &member.name).collect();
        assert_eq!(names, reply.participation.as_ref().unwrap().participants.iter().collect::<Vec<_>>());
    }
    let stage = Stage::new("").await;
    stage.members[1].follow(|read| if read > 5 { Act::Die } else { Act::Answer });
    let fusion = Some(FusionOptions { allow_degraded: Some(false), ..FusionOptions::default() });
    let error = distributions(&stage, DistributionsRequest { fusion, ..request }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn what_has_no_distribution_is_refused() {
    let stage = Stage::new("[fusion]\nrule = 'threshold_vote'").await;
    let ask = |temperature, top_n| DistributionsRequest {
        input: ids(&TOKENS),
        fusion: Some(FusionOptions { rule: Rule::LogLinear.into(), ..FusionOptions::default() }),
        temperature,
        top_n,
        ..Default::default()
    };
    for (request, message) in [
        (
            DistributionsRequest { fusion: None, ..ask(None, None) },
            "fusion.rule: threshold_vote has no distribution; allowed: another rule",
        ),
        (ask(Some(0.0), None), "temperature: 0 is not allowed; allowed: a finite number above 0"),
        (ask(Some(f64::NAN), None), "temperature: NaN is not allowed; allowed: a finite number above 0"),
        (ask(None, Some(0)), "top_n: 0 is not allowed; allowed: 1 to 1000, the server's limit"),
    ] {
        let error = distributions(&stage, request).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }
}
