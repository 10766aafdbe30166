//! What a request changes of a generation: who is asked, which tokens may come, and what is shown of the others.

use chorus_proto::v1::FusionOptions;
use tonic::Code;

use super::*;
use crate::fusion::Adjustment;
use crate::sampling::Sampling;

fn by(members: &[&str]) -> Option<FusionOptions> {
    let members = members.iter().map(|name| (*name).to_owned()).collect();
    Some(FusionOptions { members, ..FusionOptions::default() })
}

#[tokio::test]
async fn some_members_are_an_ensemble_of_their_own() {
    let stage = Stage::new("[quorum]\nmembers = 3").await;
    for (asked, participants) in
        [(&["bass"][..], &["bass"][..]), (&["cello", "alto"], &["alto", "cello"]), (&[], &NAMES)]
    {
        let request = GenerateRequest { fusion: by(asked), ..request(&[3, 1], 20, 5) };
        let replies = stage.generate(request).await.unwrap();
        for reply in &replies {
            assert_eq!(participation(reply).participants, participants);
            assert_eq!(participation(reply).missing, []);
        }
        stage.assert_fused_in_process(&[3, 1], &replies);
    }
    let asked = stage.members.each_ref().map(|member| member.feeds().len());
    assert_eq!(asked, [40, 40, 40], "nobody else was asked");
    let score = ScoreRequest { input: ids(&[1, 2, 3]), fusion: by(&["alto"]), per_token: false };
    let score = stage.score(score).await.unwrap();
    assert_eq!(score.log_prob.unwrap(), score.members[0].log_prob);
    assert_eq!(score.members.len(), 1);
}

#[tokio::test]
async fn whoever_is_no_member_can_t_be_asked() {
    let stage = Stage::new("").await;
    let allowed = "allowed: each of alto, bass, cello once, or none for all";
    for (asked, wrong) in [
        (&["tuba"][..], "\"tuba\" is no member"),
        (&["alto", "alto"], "\"alto\" is there twice"),
        (&["alto", ""], "\"\" is no member"),
    ] {
        let refusal = stage.complete(GenerateRequest { fusion: by(asked), ..request(&[1], 3, 1) }).await;
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert_eq!(refusal.message(), format!("fusion.members: {wrong}; {allowed}"));
    }
}

#[tokio::test]
async fn every_token_is_the_one_that_is_chosen_from_what_is_bent() {
    let stage = Stage::new("").await;
    let some = |ids: &'static [u32]| Some(ids);
    let lists = [
        (1.0, None, &[0, 3, 5][..]),
        (3.0, None, &[]),
        (0.4, some(&[1, 2, 6, 7]), &[2]),
        (2.0, some(&[4]), &[]),
    ];
    for (penalty, allowed, forbidden) in lists {
        for temperature in [0.0, 0.7, 1.0] {
            let list = |tokens: &[u32]| TokenIds { ids: tokens.iter().map(|id| i64::from(*id)).collect() };
            let options = SamplingOptions {
                temperature: Some(temperature),
                seed: Some(3),
                repetition_penalty: Some(penalty),
                allowed: allowed.map(list),
                forbidden: Some(list(forbidden)),
                ..SamplingOptions::default()
            };
            let request = GenerateRequest { sampling: Some(options), ..request(&[7, 1], 30, 0) };
            let replies = stage.generate(request).await.unwrap();
            let sampling = Sampling { temperature, ..Sampling::default() };
            let mut prefix = vec![7, 1];
            for (index, token) in (0..).zip(tokens(&replies)) {
                let mut seen = prefix.clone();
                seen.sort_unstable();
                seen.dedup();
                let adjustment = Adjustment { repetition_penalty: penalty, seen: &seen, allowed, forbidden };
                let expected = stage.fused(&NAMES.map(str::to_owned), &prefix, |fused| match fused {
                    Fused::Distribution(mut fused) => {
                        fused.adjusted(&adjustment, |bent| sampling.choose(bent, uniform(3, index)))
                    }
                    Fused::Winner(_) => panic!("the weighted average is a distribution"),
                });
                assert_eq!(token, expected);
                assert!(
                    allowed.is_none_or(|allowed| allowed.contains(&token)) && !forbidden.contains(&token)
                );
                prefix.push(token);
            }
            stage.assert_fused_in_process(&[7, 1], &replies);
        }
    }
}

#[tokio::test]
async fn candidates_are_what_might_have_come_and_what_everybody_thinks_of_it() {
    for rule in ["weighted_average", "threshold_vote"] {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        let request = GenerateRequest {
            candidates: Some(3),
            log_probs: false,
            sampling: None,
            ..request(&[2, 6], 5, 1)
        };
        let replies = stage.generate(request).await.unwrap();
        let mut prefix = vec![2, 6];
        for token in replies.iter().filter_map(|reply| reply.token.as_ref()) {
            let expected: Vec<(u32, f64, Option<u32>)> =
                stage.fused(&NAMES.map(str::to_owned), &prefix, |fused| match fused {
                    Fused::Distribution(fused) => {
                        fused.top(3).iter().map(|top| (top.id, top.log_prob.exp(), None)).collect()
                    }
                    Fused::Winner(fused) => {
                        let top = fused.top(3);
                        top.iter().map(|top| (top.id, top.log_prob.exp(), Some(top.votes))).collect()
                    }
                });
            assert_eq!(token.candidates.len(), 3);
            for (candidate, (id, probability, votes)) in token.candidates.iter().zip(expected) {
                assert_eq!((candidate.id, candidate.probability, candidate.votes), (id, probability, votes));
                assert_eq!(candidate.text, vocabulary().decode(&[id]));
                for (member, probability) in stage.members.iter().zip(&candidate.member_probabilities) {
                    let rows = member.model.rows([prefix.as_slice()].into_iter());
                    let own = rows.row(0).unwrap().log_prob(id).unwrap().exp();
                    assert_eq!(*probability, own);
                }
                assert_eq!(candidate.member_probabilities.len(), 3);
            }
            prefix.push(token.id);
        }
    }
}
