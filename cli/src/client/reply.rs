//! The JSON that `--json` prints: stable keys, one object for each message. Its keys are documented in the help texts.
//!
//! What is absent in an answer is absent in the JSON; a number that JSON can't hold (minus infinity) is null.

use chorus_proto::v1::{
    Activity, Candidate, CompleteReply, ConfigurationReply, Expectation, Fallback, GenerateReply,
    GeneratedToken, GenerationEnd, Hypothesis, Latency, MemberStatus, MissingMember, Participation,
    PlanTraffic, PredictReply, PrefixCacheStatus, Recovery, ReplicaStatus, ScoreReply, StatusReply,
    TokenCandidate, TokenRange, Votes, generation_end::Reason, member_status::Health,
};
use serde_json::{Map, Value, json};

use super::format::{nats_per_character, rule_name, start_name};

/// `chorus generate --json`: one object for each message of the stream.
pub(super) fn generate(reply: &GenerateReply) -> Value {
    let mut object = Map::new();
    object.insert("text".into(), json!(reply.text));
    insert_some(&mut object, "token", reply.token.as_ref().map(generated_token));
    insert_participation(&mut object, reply.participation.as_ref());
    insert_some(&mut object, "end", reply.end.as_ref().map(generation_end));
    Value::Object(object)
}

/// `chorus generate --lines --json`: one object for each whole answer.
pub(super) fn complete(reply: &CompleteReply) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("text".into(), json!(reply.text));
    // Without log-probabilities a token is a number that says nothing which the text does not.
    if reply.tokens.iter().any(|token| token.log_prob.is_some()) {
        object.insert("tokens".into(), reply.tokens.iter().map(generated_token).collect());
    }
    insert_participation(&mut object, reply.participation.as_ref());
    insert_some(&mut object, "end", reply.end.as_ref().map(generation_end));
    object
}

/// `chorus score --json` of a text of so many characters.
pub(super) fn score(reply: &ScoreReply, characters: usize) -> Value {
    let mut object = Map::new();
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("tokens".into(), json!(reply.tokens));
    object.insert("characters".into(), json!(characters));
    insert_some(&mut object, "log_prob", reply.log_prob);
    insert_some(&mut object, "perplexity", reply.perplexity);
    let of_character = reply.log_prob.map(|log_prob| nats_per_character(log_prob, characters));
    insert_some(&mut object, "nats_per_character", of_character);
    let votes = reply.votes.map(|votes| json!({ "winners": votes.winners, "votes": votes.votes }));
    insert_some(&mut object, "votes", votes);
    let members = reply.members.iter().map(|member| {
        json!({
            "name": member.name,
            "weight": member.weight,
            "log_prob": member.log_prob,
            "perplexity": member.perplexity,
            "nats_per_character": nats_per_character(member.log_prob, characters),
            "start": start_name(member.start.as_ref()),
        })
    });
    object.insert("members".into(), members.collect());
    insert_participation(&mut object, reply.participation.as_ref());
    if !reply.token_scores.is_empty() {
        object.insert("token_scores".into(), token_scores(reply));
    }
    Value::Object(object)
}

/// `chorus predict --json`.
pub(super) fn predict(reply: &PredictReply) -> Value {
    let mut object = Map::new();
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("candidates".into(), candidates(&reply.candidates));
    let members = reply.members.iter().map(|member| {
        json!({
            "name": member.name,
            "weight": member.weight,
            "start": start_name(member.start.as_ref()),
            "candidates": candidates(&member.candidates),
        })
    });
    object.insert("members".into(), members.collect());
    object.insert("cached_tokens".into(), json!(reply.cached_tokens));
    insert_participation(&mut object, reply.participation.as_ref());
    Value::Object(object)
}

fn replica(replica: &ReplicaStatus) -> Value {
    json!({
        "address": replica.address,
        "health": health_name(replica.health()),
        "reason": replica.reason,
        "device": replica.device,
        "version": replica.version,
        "sessions": replica.sessions,
    })
}

fn recovery(recovery: Recovery) -> Value {
    let Recovery { takeovers, recomputed_tokens, hedges, hedges_won } = recovery;
    json!({
        "takeovers": takeovers,
        "recomputed_tokens": recomputed_tokens,
        "hedges": hedges,
        "hedges_won": hedges_won,
    })
}

fn member_status(member: &MemberStatus) -> Value {
    json!({
        "name": member.name,
        "weight": member.weight,
        "health": health_name(member.health()),
        "reason": member.reason,
        "model": member.model,
        "model_fingerprint": member.model_fingerprint,
        "architecture": member.architecture,
        "parameters": member.parameters,
        "start": start_name(member.start.as_ref()),
        "sessions": member.sessions,
        "replicas": member.replicas.iter().map(replica).collect::<Value>(),
        "recovery": recovery(member.recovery.unwrap_or_default()),
        "traffic": member.traffic.iter().map(plan_traffic).collect::<Value>(),
    })
}

/// `chorus status --json`.
pub(super) fn status(reply: &StatusReply) -> Value {
    let members = reply.members.iter().map(member_status);
    let mut object = Map::new();
    object.insert("serving".into(), json!(reply.serving));
    object.insert("version".into(), json!(reply.version));
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("threshold".into(), json!(reply.threshold));
    let quorum = reply.quorum.map(|quorum| json!({ "members": quorum.members, "weight": quorum.weight }));
    insert_some(&mut object, "quorum", quorum);
    let limits = reply.limits.map(|limits| {
        json!({
            "max_input_tokens": limits.max_input_tokens,
            "max_generated_tokens": limits.max_generated_tokens,
            "max_input_bytes": limits.max_input_bytes,
            "max_sessions": limits.max_sessions,
            "max_top_n": limits.max_top_n, "max_beam_size": limits.max_beam_size,
            "max_candidates": limits.max_candidates,
            "max_waiting": limits.max_waiting,
            "max_wait_ms": limits.max_wait_ms,
            "max_tokens_in_progress": limits.max_tokens_in_progress,
        })
    });
    insert_some(&mut object, "limits", limits);
    object.insert("vocabulary_size".into(), json!(reply.vocabulary_size));
    object.insert("vocabulary_fingerprint".into(), json!(reply.vocabulary_fingerprint));
    object.insert("sessions".into(), json!(reply.sessions));
    object.insert("waiting".into(), json!(reply.waiting));
    object.insert("tokens_in_progress".into(), json!(reply.tokens_in_progress));
    object.insert("revision".into(), json!(reply.revision));
    let learned = reply.learned.as_ref().map(|learned| {
        let rules = learned.rules.iter().map(|rule| json!(rule_name(*rule)));
        json!({ "in_force": learned.in_force, "reason": learned.reason, "rules": rules.collect::<Value>() })
    });
    insert_some(&mut object, "learned", learned);
    object.insert("members".into(), members.collect());
    insert_some(&mut object, "fallback", reply.fallback.as_ref().map(member_status));
    insert_some(&mut object, "activity", reply.activity.map(activity));
    insert_some(&mut object, "prefix_cache", reply.prefix_cache.map(prefix_cache));
    Value::Object(object)
}

fn prefix_cache(cache: PrefixCacheStatus) -> Value {
    let PrefixCacheStatus { entries, bytes, max_bytes, cached_tokens, read_tokens } = cache;
    json!({
        "entries": entries,
        "bytes": bytes,
        "max_bytes": max_bytes,
        "cached_tokens": cached_tokens,
        "read_tokens": read_tokens,
    })
}

fn activity(activity: Activity) -> Value {
    let latency = |latency: Option<Latency>| {
        let Latency { count, p50_ms, p95_ms, p99_ms } = latency.unwrap_or_default();
        json!({ "count": count, "p50_ms": p50_ms, "p95_ms": p95_ms, "p99_ms": p99_ms })
    };
    json!({
        "generated_tokens": activity.generated_tokens,
        "scored_tokens": activity.scored_tokens,
        "first_token": latency(activity.first_token),
        "next_token": latency(activity.next_token),
    })
}

/// `chorus members --json`.
pub(super) fn configuration(reply: &ConfigurationReply) -> Value {
    let members = reply
        .members
        .iter()
        .map(|member| json!({ "name": member.name, "weight": member.weight, "addresses": member.addresses }));
    let quorum = reply.quorum.unwrap_or_default();
    json!({
        "revision": reply.revision,
        "rule": rule_name(reply.rule),
        "threshold": reply.threshold,
        "quorum": { "members": quorum.members, "weight": quorum.weight },
        "members": members.collect::<Value>(),
    })
}

fn plan_traffic(traffic: &PlanTraffic) -> Value {
    json!({
        "plan": traffic.plan,
        "bytes_sent": traffic.bytes_sent,
        "bytes_received": traffic.bytes_received,
        "tokens": traffic.tokens,
        "output_rows": traffic.output_rows,
    })
}

/// A member's health in lower case: `up`, `down`, `connecting`, `refused`.
pub(super) fn health_name(health: Health) -> String {
    health.as_str_name().trim_start_matches("HEALTH_").to_lowercase()
}

/// Why a generation ended in lower case: `max_tokens`, `stop_string`, `end_token`.
pub(super) fn reason_name(reason: Reason) -> String {
    reason.as_str_name().trim_start_matches("REASON_").to_lowercase()
}

fn insert_some<T: Into<Value>>(object: &mut Map<String, Value>, key: &str, value: Option<T>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

pub(super) fn insert_participation(object: &mut Map<String, Value>, participation: Option<&Participation>) {
    let Some(participation) = participation else {
        return;
    };
    object.insert("participants".into(), json!(participation.participants));
    object.insert("missing".into(), participation.missing.iter().map(missing_member).collect());
    if !participation.rejoined.is_empty() {
        object.insert("rejoined".into(), json!(participation.rejoined));
    }
    insert_some(object, "expectation", participation.expectation.map(expectation));
    insert_some(object, "fallback", participation.fallback.as_ref().map(fallback));
}

fn expectation(expectation: Expectation) -> Value {
    let Expectation { perplexity, perplexity_of_all, accuracy, accuracy_of_all } = expectation;
    let mut object = Map::new();
    insert_some(&mut object, "perplexity", perplexity);
    insert_some(&mut object, "perplexity_of_all", perplexity_of_all);
    insert_some(&mut object, "accuracy", accuracy);
    insert_some(&mut object, "accuracy_of_all", accuracy_of_all);
    Value::Object(object)
}

fn fallback(fallback: &Fallback) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(fallback.name));
    if !fallback.tokens.is_empty() {
        object.insert("tokens".into(), token_ranges(&fallback.tokens));
    }
    Value::Object(object)
}

fn token_ranges(ranges: &[TokenRange]) -> Value {
    ranges.iter().map(|range| json!([range.first, range.end])).collect()
}

fn missing_member(member: &MissingMember) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(member.name));
    object.insert("reason".into(), json!(member.reason));
    if !member.tokens.is_empty() {
        object.insert("tokens".into(), token_ranges(&member.tokens));
    }
    Value::Object(object)
}

fn generated_token(token: &GeneratedToken) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), json!(token.id));
    object.insert("index".into(), json!(token.index));
    insert_some(&mut object, "log_prob", token.log_prob);
    if !token.members.is_empty() {
        let members = token.members.iter();
        let members = members.map(
            |member| json!({ "name": member.name, "log_prob": member.log_prob, "weight": member.weight }),
        );
        object.insert("members".into(), members.collect());
    }
    insert_some(&mut object, "votes", token.votes.map(votes));
    if !token.candidates.is_empty() {
        object.insert("candidates".into(), token.candidates.iter().map(token_candidate).collect());
    }
    Value::Object(object)
}

fn token_candidate(candidate: &TokenCandidate) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), json!(candidate.id));
    object.insert("text".into(), json!(candidate.text));
    object.insert("probability".into(), json!(candidate.probability));
    insert_some(&mut object, "votes", candidate.votes);
    object.insert("members".into(), json!(candidate.member_probabilities));
    Value::Object(object)
}

fn votes(votes: Votes) -> Value {
    json!({ "count": votes.count, "by_weighted_average": votes.by_weighted_average })
}

fn generation_end(end: &GenerationEnd) -> Value {
    let mut object = Map::new();
    object.insert("reason".into(), json!(reason_name(end.reason())));
    object.insert("prompt_tokens".into(), json!(end.prompt_tokens));
    object.insert("cached_prompt_tokens".into(), json!(end.cached_prompt_tokens));
    object.insert("generated_tokens".into(), json!(end.generated_tokens));
    object.insert("seed".into(), json!(end.seed));
    object.insert("rule".into(), json!(rule_name(end.rule)));
    if !end.hypotheses.is_empty() {
        object.insert("hypotheses".into(), end.hypotheses.iter().map(hypothesis).collect());
    }
    Value::Object(object)
}

fn hypothesis(found: &Hypothesis) -> Value {
    json!({
        "text": found.text,
        "tokens": found.tokens,
        "log_prob": found.log_prob,
        "score": found.score,
        "reason": reason_name(found.reason()),
    })
}

fn token_scores(reply: &ScoreReply) -> Value {
    let scores = reply.token_scores.iter().map(|score| {
        let mut object = Map::new();
        object.insert("id".into(), json!(score.id));
        object.insert("text".into(), json!(score.text));
        insert_some(&mut object, "log_prob", score.log_prob);
        object.insert("member_log_probs".into(), json!(score.member_log_probs));
        insert_some(&mut object, "votes", score.votes.map(votes));
        insert_some(&mut object, "winner", score.winner);
        Value::Object(object)
    });
    scores.collect()
}

fn candidates(candidates: &[Candidate]) -> Value {
    let candidates = candidates.iter().map(|candidate| {
        let mut object = Map::new();
        object.insert("id".into(), json!(candidate.id));
        object.insert("text".into(), json!(candidate.text));
        object.insert("probability".into(), json!(candidate.probability));
        insert_some(&mut object, "votes", candidate.votes);
        Value::Object(object)
    });
    candidates.collect()
}

#[cfg(test)]
mod tests;
