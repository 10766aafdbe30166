//! The keys of every JSON answer: scripts depend on them.

use chorus_proto::v1::{
    LearnedWeights, MemberLogProb, MemberPrediction, MemberScore, MemberStatus, PlanTraffic, Quorum,
    Recovery, ReplicaStatus, RequestLimits, Rule, Start, TokenScore, VoteScore, start,
};

use super::*;

fn participation() -> Option<Participation> {
    Some(Participation {
        participants: vec!["alto".into()],
        missing: vec![MissingMember {
            name: "bass".into(),
            reason: "connection refused".into(),
            ..MissingMember::default()
        }],
        expectation: Some(Expectation {
            perplexity: Some(18.5),
            perplexity_of_all: Some(17.0),
            ..Expectation::default()
        }),
        ..Participation::default()
    })
}

fn zero_state() -> Option<Start> {
    Some(Start { start: Some(start::Start::ZeroState(true)) })
}

#[test]
fn a_generated_token() {
    let reply = GenerateReply {
        token: Some(GeneratedToken {
            id: 7,
            index: 0,
            log_prob: Some(-0.5),
            members: vec![MemberLogProb { name: "alto".into(), log_prob: f64::NEG_INFINITY, weight: 0.5 }],
            ..GeneratedToken::default()
        }),
        text: "a".into(),
        participation: participation(),
        end: None,
    };
    assert_eq!(
        generate(&reply),
        json!({
            "text": "a",
            "token": {
                "id": 7, "index": 0, "log_prob": -0.5,
                "members": [{ "name": "alto", "log_prob": null, "weight": 0.5 }],
            },
            "participants": ["alto"],
            "missing": [{ "name": "bass", "reason": "connection refused" }],
            "expectation": { "perplexity": 18.5, "perplexity_of_all": 17.0 },
        })
    );
}

#[test]
fn an_answer_of_the_fallback_says_so() {
    let fallback = |tokens| Fallback { name: "student".into(), tokens };
    let reply = |tokens| GenerateReply {
        participation: Some(Participation { fallback: Some(fallback(tokens)), ..Participation::default() }),
        ..GenerateReply::default()
    };
    assert_eq!(generate(&reply(Vec::new()))["fallback"], json!({ "name": "student" }));
    let some = generate(&reply(vec![TokenRange { first: 3, end: 7 }]));
    assert_eq!(some["fallback"], json!({ "name": "student", "tokens": [[3, 7]] }));
}

#[test]
fn the_last_message_of_a_generation() {
    let reply = GenerateReply {
        end: Some(GenerationEnd {
            reason: Reason::StopString.into(),
            prompt_tokens: 3,
            generated_tokens: 9,
            seed: u64::MAX,
            rule: Rule::ThresholdVote.into(),
            cached_prompt_tokens: 2,
            hypotheses: Vec::new(),
        }),
        ..GenerateReply::default()
    };
    assert_eq!(
        generate(&reply),
        json!({
            "text": "",
            "end": {
                "reason": "stop_string", "prompt_tokens": 3, "cached_prompt_tokens": 2, "generated_tokens": 9,
                "seed": 18_446_744_073_709_551_615_u64, "rule": "threshold_vote",
            },
        })
    );
}

#[test]
fn a_score_with_a_distribution() {
    let reply = ScoreReply {
        tokens: 2,
        log_prob: Some(-2.0),
        perplexity: Some(2.5),
        members: vec![MemberScore {
            name: "alto".into(),
            log_prob: -3.0,
            perplexity: 4.5,
            start: zero_state(),
            weight: 1.0,
        }],
        token_scores: vec![TokenScore {
            id: 1,
            text: "x".into(),
            log_prob: Some(-1.0),
            member_log_probs: vec![-1.5],
            ..TokenScore::default()
        }],
        participation: participation(),
        rule: Rule::WeightedAverage.into(),
        votes: None,
    };
    assert_eq!(
        score(&reply, 4),
        json!({
            "rule": "weighted_average", "tokens": 2, "characters": 4,
            "log_prob": -2.0, "perplexity": 2.5, "nats_per_character": 0.5,
            "members": [{
                "name": "alto", "weight": 1.0, "log_prob": -3.0, "perplexity": 4.5,
                "nats_per_character": 0.75, "start": "zero_state",
            }],
            "participants": ["alto"],
            "missing": [{ "name": "bass", "reason": "connection refused" }],
            "expectation": { "perplexity": 18.5, "perplexity_of_all": 17.0 },
            "token_scores": [{ "id": 1, "text": "x", "log_prob": -1.0, "member_log_probs": [-1.5] }],
        })
    );
}

#[test]
fn a_score_by_vote_has_votes_and_no_log_probability() {
    let reply = ScoreReply {
        tokens: 4,
        votes: Some(VoteScore { winners: 3, votes: 8 }),
        rule: Rule::ThresholdVote.into(),
        ..ScoreReply::default()
    };
    assert_eq!(
        score(&reply, 4),
        json!({ "rule": "threshold_vote", "tokens": 4, "characters": 4, "votes": { "winners": 3, "votes": 8 }, "members": [] })
    );
}

#[test]
fn a_prediction() {
    let candidate = Candidate { id: 5, text: "e".into(), probability: 0.25, votes: None };
    let reply = PredictReply {
        candidates: vec![candidate.clone()],
        members: vec![MemberPrediction {
            name: "alto".into(),
            candidates: vec![Candidate { votes: Some(2), ..candidate }],
            weight: 1.0,
            start: zero_state(),
        }],
        participation: participation(),
        rule: Rule::LogLinear.into(),
        cached_tokens: 6,
    };
    assert_eq!(
        predict(&reply),
        json!({
            "rule": "log_linear",
            "candidates": [{ "id": 5, "text": "e", "probability": 0.25 }],
            "members": [{
                "name": "alto", "weight": 1.0, "start": "zero_state",
                "candidates": [{ "id": 5, "text": "e", "probability": 0.25, "votes": 2 }],
            }],
            "cached_tokens": 6,
            "participants": ["alto"],
            "missing": [{ "name": "bass", "reason": "connection refused" }],
            "expectation": { "perplexity": 18.5, "perplexity_of_all": 17.0 },
        })
    );
}

#[test]
fn the_status() {
    let reply = StatusReply {
        members: vec![MemberStatus {
            name: "alto".into(),
            weight: 2.0,
            health: Health::Up.into(),
            reason: String::new(),
            model: "alto".into(),
            architecture: "lstm 2x320".into(),
            parameters: 1000,
            start: zero_state(),
            sessions: 3,
            traffic: vec![PlanTraffic {
                plan: "drawn".into(),
                bytes_sent: 7,
                bytes_received: 8,
                tokens: 9,
                output_rows: 10,
            }],
            replicas: vec![ReplicaStatus {
                address: "http://127.0.0.1:9".into(),
                health: Health::Up.into(),
                reason: String::new(),
                device: "cpu".into(),
                version: "0.1.0".into(),
                sessions: 2,
            }],
            recovery: Some(Recovery { takeovers: 11, recomputed_tokens: 12, hedges: 13, hedges_won: 14 }),
            model_fingerprint: "sha256:1".into(),
        }],
        rule: Rule::LogitMean.into(),
        threshold: 0.25,
        quorum: Some(Quorum { members: 1, weight: 0.5 }),
        limits: Some(RequestLimits {
            max_input_tokens: 1,
            max_generated_tokens: 2,
            max_input_bytes: 3,
            max_sessions: 4,
            max_top_n: 5,
            max_beam_size: 9,
            max_candidates: 10,
            max_waiting: 6,
            max_wait_ms: 7,
            max_tokens_in_progress: 8,
        }),
        vocabulary_size: 65,
        vocabulary_fingerprint: "ab12".into(),
        sessions: 6,
        version: "0.1.0".into(),
        serving: true,
        waiting: 7,
        tokens_in_progress: 8,
        revision: 2,
        learned: Some(LearnedWeights {
            in_force: true,
            reason: String::new(),
            rules: vec![Rule::LogLinear.into()],
        }),
        fallback: None,
        activity: Some(Activity {
            generated_tokens: 15,
            scored_tokens: 16,
            first_token: Some(Latency { count: 17, p50_ms: 0.5, p95_ms: 1.5, p99_ms: 2.5 }),
            next_token: None,
        }),
        prefix_cache: Some(PrefixCacheStatus {
            entries: 1,
            bytes: 2,
            max_bytes: 3,
            cached_tokens: 4,
            read_tokens: 5,
        }),
    };
    assert_eq!(
        status(&reply),
        json!({
            "serving": true, "version": "0.1.0", "rule": "logit_mean", "threshold": 0.25,
            "quorum": { "members": 1, "weight": 0.5 },
            "limits": {
                "max_input_tokens": 1, "max_generated_tokens": 2, "max_input_bytes": 3, "max_sessions": 4,
                "max_top_n": 5, "max_beam_size": 9, "max_candidates": 10, "max_waiting": 6, "max_wait_ms": 7, "max_tokens_in_progress": 8,
            },
            "vocabulary_size": 65, "vocabulary_fingerprint": "ab12", "sessions": 6, "waiting": 7,
            "tokens_in_progress": 8,
            "revision": 2,
            "learned": { "in_force": true, "reason": "", "rules": ["log_linear"] },
            "members": [{
                "name": "alto", "weight": 2.0, "health": "up", "reason": "",
                "model": "alto", "model_fingerprint": "sha256:1", "architecture": "lstm 2x320", "parameters": 1000,
                "start": "zero_state", "sessions": 3,
                "replicas": [{
                    "address": "http://127.0.0.1:9", "health": "up", "reason": "", "device": "cpu",
                    "version": "0.1.0", "sessions": 2,
                }],
                "recovery": {
                    "takeovers": 11, "recomputed_tokens": 12, "hedges": 13, "hedges_won": 14,
                },
                "traffic": [{
                    "plan": "drawn", "bytes_sent": 7, "bytes_received": 8, "tokens": 9, "output_rows": 10,
                }],
            }],
            "activity": {
                "generated_tokens": 15, "scored_tokens": 16,
                "first_token": { "count": 17, "p50_ms": 0.5, "p95_ms": 1.5, "p99_ms": 2.5 },
                "next_token": { "count": 0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0 },
            },
            "prefix_cache": { "entries": 1, "bytes": 2, "max_bytes": 3, "cached_tokens": 4, "read_tokens": 5 },
        })
    );
}

#[test]
fn every_health_and_reason_has_a_plain_name() {
    assert_eq!(health_name(Health::Refused), "refused");
    assert_eq!(health_name(Health::Unspecified), "unspecified");
    assert_eq!(reason_name(Reason::MaxTokens), "max_tokens");
    assert_eq!(reason_name(Reason::EndToken), "end_token");
}
