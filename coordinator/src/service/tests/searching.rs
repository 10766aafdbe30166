//! Beam search, held against the enumeration of every sequence in this process.

use chorus_proto::v1::{BeamOptions, FusionOptions, Hypothesis, generation_end::Reason};
use tonic::Code;

use super::*;
use crate::fusion::{Adjustment, Rule};
use crate::testing::scripted_replica::Act;

const ROOM: &str = "[limits]\nmax_beam_size = 500\n";

fn searching(prompt: &[u32], max_tokens: u32, beam: BeamOptions) -> GenerateRequest {
    GenerateRequest {
        prompt: ids(prompt),
        max_tokens: Some(max_tokens),
        beam: Some(beam),
        log_probs: true,
        ..GenerateRequest::default()
    }
}

fn beam(size: u32, n_best: u32) -> BeamOptions {
    BeamOptions { size, n_best: Some(n_best), length_penalty: None }
}

impl Stage {
    /// Every sequence of so many tokens after a prompt by these participants, with what its tokens count, best first.
    fn every_sequence(
        &self,
        participants: &[&str],
        prompt: &[u32],
        tokens: usize,
        bend: impl Fn(&[u32], u32, f64) -> f64,
    ) -> Vec<(Vec<u32>, f64)> {
        let participants: Vec<String> = participants.iter().map(|name| (*name).to_owned()).collect();
        let mut all = vec![(prompt.to_vec(), 0.0)];
        for _ in 0..tokens {
            let longer = |(prefix, sum): &(Vec<u32>, f64)| {
                let log_probs: Vec<f64> = self.fused(&participants, prefix, |fused| match fused {
                    Fused::Distribution(distribution) => distribution.log_probs().collect(),
                    Fused::Winner(_) => panic!("a vote is not searched"),
                });
                let next = (0_u32..).zip(log_probs).map(|(id, log_prob)| {
                    let mut sequence = prefix.clone();
                    sequence.push(id);
                    (sequence, sum + bend(prefix, id, log_prob))
                });
                next.collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        let mut all: Vec<_> =
            all.into_iter().map(|(tokens, sum)| (tokens[prompt.len()..].to_vec(), sum)).collect();
        all.sort_by(|(one, sum), (other, other_sum)| other_sum.total_cmp(sum).then(one.cmp(other)));
        all.retain(|(_, sum)| *sum > f64::NEG_INFINITY);
        all
    }
}

fn found(replies: &[GenerateReply]) -> &[Hypothesis] {
    &replies.last().unwrap().end.as_ref().unwrap().hypotheses
}

fn assert_same(found: &[Hypothesis], expected: &[(Vec<u32>, f64)]) {
    for (found, (tokens, score)) in found.iter().zip(expected) {
        assert_eq!(&found.tokens, tokens);
        assert!((found.score - score).abs() < 1e-9, "{found:?} {score}");
        assert_eq!(found.text, vocabulary().decode(tokens));
        assert_eq!(found.reason(), Reason::MaxTokens);
    }
}

#[tokio::test]
async fn a_search_with_room_for_everything_finds_the_best_of_all_sequences() {
    for rule in Rule::ALL.into_iter().filter(|rule| rule.yields_distribution()) {
        let stage = Stage::new(&format!("{ROOM}[fusion]\nrule = '{rule}'")).await;
        let prompt = [1, 2, 3];
        let replies = stage.generate(searching(&prompt, 3, beam(100, 7))).await.unwrap();
        let all = stage.every_sequence(&NAMES, &prompt, 3, |_, _, log_prob| log_prob);
        assert_eq!(found(&replies).len(), 7);
        assert_same(found(&replies), &all);
        assert_eq!(tokens(&replies), all[0].0, "the answer is the best one");
        assert_eq!(joined(&replies), found(&replies)[0].text);
        stage.assert_fused_in_process(&prompt, &replies);
    }
}

#[tokio::test]
async fn penalty_and_constraints_are_searched_with_and_log_probabilities_are_those_without() {
    let stage = Stage::new(ROOM).await;
    let id_list = |ids: &[i64]| Some(TokenIds { ids: ids.to_vec() });
    let sampling = SamplingOptions {
        repetition_penalty: Some(1.7),
        allowed: id_list(&[0, 2, 3, 4, 6, 7]),
        forbidden: id_list(&[4, 1]),
        ..SamplingOptions::default()
    };
    let request = GenerateRequest { sampling: Some(sampling), ..searching(&[2, 2, 5], 3, beam(200, 5)) };
    let replies = stage.generate(request).await.unwrap();
    let bend = |prefix: &[u32], id, log_prob| {
        let mut seen = prefix.to_vec();
        seen.sort_unstable();
        seen.dedup();
        let (allowed, forbidden) = (Some(&[0, 2, 3, 4, 6, 7][..]), &[1, 4][..]);
        Adjustment { repetition_penalty: 1.7, seen: &seen, allowed, forbidden }.bend(id, log_prob)
    };
    let all = stage.every_sequence(&NAMES, &[2, 2, 5], 3, bend);
    assert_eq!(all.len(), 5 * 5 * 5);
    assert_same(found(&replies), &all);
    let plain = stage.every_sequence(&NAMES, &[2, 2, 5], 3, |_, _, log_prob| log_prob);
    for found in found(&replies) {
        let (_, log_prob) = plain.iter().find(|(tokens, _)| *tokens == found.tokens).unwrap();
        assert!((found.log_prob - log_prob).abs() < 1e-9);
    }
}

#[tokio::test]
async fn likeliest_tokens_alone_make_the_search_that_whole_rows_make() {
    let vocabulary = large_vocabulary();
    let stage = Stage::with(Style::Language, &vocabulary, "").await;
    let search = |whole_rows| {
        let fusion = Some(FusionOptions { whole_rows, ..FusionOptions::default() });
        let request = searching(&[5, 6], 6, BeamOptions { length_penalty: Some(0.6), ..beam(4, 4) });
        GenerateRequest { fusion, log_probs: false, ..request }
    };
    let by_lists = stage.generate(search(false)).await.unwrap();
    let asked = stage.members[0].asks();
    assert!(asked.iter().any(|ask| matches!(ask, crate::plan::Ask::Top { .. })), "{asked:?}");
    let by_rows = stage.generate(search(true)).await.unwrap();
    assert_eq!(found(&by_lists), found(&by_rows));
    assert_eq!(found(&by_lists).len(), 4);
}

#[tokio::test]
async fn a_member_that_one_sequence_loses_is_out_of_all_of_them() {
    let stage = Stage::new(ROOM).await;
    let mut feeds = 0;
    stage.members[1].follow(move |_| {
        feeds += 1;
        // In the middle of the second step.
        if feeds == 4 { Act::Fail(ReplicaError::NotFinite { what: "a row".to_owned() }) } else { Act::Answer }
    });
    let replies = stage.generate(searching(&[1], 3, beam(8, 3))).await.unwrap();
    let participants = |index: usize| participation(&replies[index]).participants.clone();
    assert_eq!(participants(0), NAMES);
    for index in [1, 2] {
        assert_eq!(participants(index), ["alto", "cello"]);
        assert!(participation(&replies[index]).missing[0].reason.contains("not finite"));
    }
    let first = found(&replies)[0].tokens.clone();
    let after = [1, first[0]];
    let rest = stage.every_sequence(&["alto", "cello"], &after, 2, |_, _, log_prob| log_prob);
    let whole = stage.every_sequence(&NAMES, &[1], 1, |_, _, log_prob| log_prob);
    let of_first = whole.iter().find(|(tokens, _)| tokens[0] == first[0]).unwrap().1;
    let of_rest = rest.iter().find(|(tokens, _)| *tokens == first[1..]).unwrap().1;
    assert!((found(&replies)[0].score - (of_first + of_rest)).abs() < 1e-9);
}

#[tokio::test]
async fn a_sequence_ends_at_its_stop_string() {
    let stage = Stage::new("").await;
    let all = stage.every_sequence(&NAMES, &[1, 2], 2, |_, _, log_prob| log_prob);
    let stop = vocabulary().decode(&all[0].0[..1]);
    let request = GenerateRequest { stop: vec![stop], ..searching(&[1, 2], 2, beam(8, 8)) };
    let replies = stage.generate(request).await.unwrap();
    let stopped = found(&replies).iter().find(|found| found.reason() == Reason::StopString).unwrap();
    assert_eq!((stopped.text.as_str(), stopped.tokens.as_slice()), ("", &all[0].0[..1]));
    assert!(found(&replies).iter().any(|found| found.reason() == Reason::MaxTokens));
}

#[tokio::test]
async fn the_fallback_searches_where_the_quorum_is_gone() {
    let config =
        format!("{ROOM}[quorum]\nmembers = 3\n[fallback]\nname = 'student'\naddress = 'http://127.0.0.1:9'");
    let stage = Stage::new(&config).await;
    stage.student.start();
    stage.members[2].follow(|read| if read >= 3 { Act::Die } else { Act::Answer });
    let replies = stage.generate(searching(&[1, 2], 3, beam(4, 2))).await.unwrap();
    for reply in replies.iter().filter(|reply| reply.token.is_some()) {
        assert_eq!(participation(reply).participants, [STUDENT]);
    }
    let fallback = participation(replies.last().unwrap()).fallback.as_ref().unwrap();
    assert_eq!(fallback.name, STUDENT);
    assert_eq!(found(&replies).len(), 2);
    for member in &stage.members {
        member.until_idle().await;
    }
}

#[tokio::test]
async fn what_does_not_go_with_a_search_is_refused() {
    let stage = Stage::new("").await;
    let request = || searching(&[1], 3, beam(4, 2));
    let drawing = SamplingOptions { temperature: Some(0.5), ..SamplingOptions::default() };
    let vote =
        FusionOptions { rule: chorus_proto::v1::Rule::ThresholdVote.into(), ..FusionOptions::default() };
    let adaptive = FusionOptions { adaptive: true, ..FusionOptions::default() };
    for (request, message) in [
        (
            searching(&[1], 3, beam(33, 1)),
            "beam.size: 33 is not allowed; allowed: 1 to 32 (limits.max_beam_size)",
        ),
        (
            searching(&[1], 3, beam(0, 1)),
            "beam.size: 0 is not allowed; allowed: 1 to 32 (limits.max_beam_size)",
        ),
        (searching(&[1], 3, beam(4, 5)), "beam.n_best: 5 is not allowed; allowed: 1 to 4 (beam.size)"),
        (
            searching(&[1], 3, BeamOptions { length_penalty: Some(-1.0), ..beam(4, 1) }),
            "beam.length_penalty: -1 is not allowed; allowed: a finite number of at least 0",
        ),
        (
            GenerateRequest { sampling: Some(drawing), ..request() },
            "sampling.temperature: a search draws nothing; allowed: absent, or no beam",
        ),
        (
            GenerateRequest { fusion: Some(vote), log_probs: false, ..request() },
            "beam: threshold_vote has no distribution to search; allowed: absent, or another rule",
        ),
        (
            GenerateRequest { fusion: Some(adaptive), ..request() },
            "fusion.adaptive: weights follow one text, and a search has many; allowed: false, or no beam",
        ),
        (
            GenerateRequest { candidates: Some(1), ..request() },
            "candidates: a search shows no candidates; allowed: none, or no beam",
        ),
    ] {
        let refusal = stage.complete(request).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, message));
    }
}
