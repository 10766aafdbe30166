//! What comes out is what the rule says, to the bit, whatever the order of arrival.

use std::time::Duration;

use chorus_proto::v1::{GenerateRequest, PredictRequest};

use super::*;
use crate::fusion::Rule;
use crate::sampling::Sampling;
use crate::testing::scripted_replica::Act;

#[tokio::test]
async fn every_rule_generates_what_fusion_in_this_process_gives() {
    for rule in Rule::ALL {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        let mut request = request(&[0, 5, 2], 30, 11);
        if rule == Rule::ThresholdVote {
            request = GenerateRequest { sampling: None, log_probs: false, ..request };
        }
        let replies = stage.generate(request).await.unwrap();
        assert_eq!(tokens(&replies).len(), 30);
        stage.assert_fused_in_process(&[0, 5, 2], &replies);
        assert_eq!(joined(&replies), vocabulary().decode(&tokens(&replies)));
    }
}

#[tokio::test]
async fn every_token_is_the_one_that_sampling_chooses() {
    let stage = Stage::new("").await;
    let plain = Sampling::default();
    for sampling in [
        plain,
        Sampling { temperature: 0.0, ..plain },
        Sampling { temperature: 0.4, ..plain },
        Sampling { temperature: 2.5, ..plain },
        Sampling { top_k: 2, ..plain },
        Sampling { top_p: 0.5, ..plain },
        Sampling { temperature: 1.5, top_k: 5, top_p: 0.8 },
    ] {
        let options = SamplingOptions {
            temperature: Some(sampling.temperature),
            top_k: Some(sampling.top_k),
            top_p: Some(sampling.top_p),
            seed: Some(11),
            ..SamplingOptions::default()
        };
        let request = GenerateRequest { sampling: Some(options), ..request(&[7, 1], 60, 0) };
        let replies = stage.generate(request).await.unwrap();
        let mut prefix = vec![7, 1];
        for (index, token) in (0..).zip(tokens(&replies)) {
            let expected = stage.fused(&NAMES.map(str::to_owned), &prefix, |fused| match fused {
                Fused::Distribution(_) if sampling == plain => stage.drawn(&prefix, 11, index),
                Fused::Distribution(mut fused) => sampling.choose(&mut fused, uniform(11, index)),
                Fused::Winner(_) => panic!("the weighted average is a distribution"),
            });
            assert_eq!(token, expected, "{sampling:?}, token {index}");
            prefix.push(token);
        }
        assert_eq!(prefix.len(), 62);
    }
}

#[tokio::test]
async fn every_token_has_each_members_own_log_probability() {
    let stage = Stage::new("").await;
    let replies = stage.generate(request(&[1], 5, 3)).await.unwrap();
    let mut prefix = vec![1];
    for reply in &replies[..5] {
        let token = reply.token.as_ref().unwrap();
        for (member, scripted) in token.members.iter().zip(&stage.members) {
            let rows = scripted.model.rows([prefix.as_slice()].into_iter());
            let own = rows.row(0).unwrap().log_prob(token.id).unwrap();
            assert_eq!(
                (member.name.as_str(), member.log_prob.to_bits()),
                (scripted.address(), own.to_bits())
            );
        }
        assert_eq!(token.members.len(), 3);
        prefix.push(token.id);
    }
}

#[tokio::test]
async fn predict_gives_the_fused_distribution_and_each_members() {
    for rule in Rule::ALL {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        let request = PredictRequest { prefix: ids(&[3, 3]), top_n: Some(100), fusion: None };
        let reply = stage.predict(request).await.unwrap();
        assert_eq!(reply.candidates.len(), 8, "no more than there are tokens");
        for candidate in &reply.candidates {
            let (log_prob, votes) = stage.fused(&NAMES.map(str::to_owned), &[3, 3], |fused| match fused {
                Fused::Distribution(distribution) => (distribution.log_prob(candidate.id), None),
                Fused::Winner(winner) => {
                    (winner.mixture.log_prob(candidate.id), Some(winner.votes_for(candidate.id)))
                }
            });
            assert_eq!(candidate.probability.to_bits(), log_prob.unwrap().exp().to_bits());
            assert_eq!(candidate.votes, votes);
        }
        let weights: f64 = reply.members.iter().map(|member| member.weight).sum();
        assert!((weights - 1.0).abs() < 1e-12);
        for (member, scripted) in reply.members.iter().zip(&stage.members) {
            let rows = scripted.model.rows([[3, 3].as_slice()].into_iter());
            let own = rows.row(0).unwrap().top(8);
            let own: Vec<_> = own.iter().map(|own| (own.id, own.log_prob.exp().to_bits())).collect();
            let said = member.candidates.iter().map(|said| (said.id, said.probability.to_bits()));
            assert_eq!((member.name.as_str(), said.collect::<Vec<_>>()), (scripted.address(), own));
            assert!(member.start.is_some());
        }
        assert_eq!(reply.members.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_of_arrival_changes_nothing() {
    let stage = Stage::new("").await;
    let in_order = stage.generate(request(&[4, 4], 20, 5)).await.unwrap();
    for delays in [[3, 1, 2], [1, 3, 2], [2, 1, 3]] {
        for (member, delay) in stage.members.iter().zip(delays) {
            member.follow(move |_| Act::AnswerAfter(Duration::from_millis(delay)));
        }
        assert_eq!(stage.generate(request(&[4, 4], 20, 5)).await.unwrap(), in_order);
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_and_the_server_says_which_it_used() {
    let stage = Stage::new("").await;
    let first = stage.generate(request(&[0], 40, 1)).await.unwrap();
    assert_eq!(stage.generate(request(&[0], 40, 1)).await.unwrap(), first);
    assert_ne!(tokens(&stage.generate(request(&[0], 40, 2)).await.unwrap()), tokens(&first));

    let mut unseeded = request(&[0], 40, 0);
    unseeded.sampling = None;
    let chosen = stage.generate(unseeded).await.unwrap();
    let seed = chosen.last().unwrap().end.as_ref().unwrap().seed;
    assert!(seed < 1 << 53, "JSON readers keep it");
    assert_eq!(stage.generate(request(&[0], 40, seed)).await.unwrap(), chosen);
}

#[tokio::test]
async fn sessions_do_not_mix() {
    let stage = Stage::new("").await;
    let prompts: Vec<Vec<u32>> = (0..8).map(|token| vec![token, 7 - token]).collect();
    let together = prompts.iter().map(|prompt| stage.generate(request(prompt, 25, 9)));
    for (prompt, replies) in prompts.iter().zip(futures::future::join_all(together).await) {
        stage.assert_fused_in_process(prompt, &replies.unwrap());
    }
}
