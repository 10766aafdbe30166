//! How rankings look: a table, a JSON object. Knows nothing about where candidates come from.

use chorus_proto::v1::{RankReply, RankedCandidate};
use serde_json::{Map, Value, json};

use super::candidates::Candidate;
use crate::client::{
    format::{number, quoted, rule_name, table},
    reply,
};

/// A row for each candidate, the best first.
pub(super) fn ranking_table(reply: &RankReply, candidates: &[Candidate]) -> String {
    let names = reply.participation.iter().flat_map(|participation| &participation.participants);
    let mut header = vec!["rank", "score", "log-probability", "tokens", "candidate"];
    let names: Vec<&str> = names.map(String::as_str).collect();
    header.splice(4..4, names.iter().copied());
    let rows = reply.candidates.iter().enumerate().map(|(rank, ranked)| {
        let first = [
            (rank + 1).to_string(),
            number(Some(ranked.score)),
            number(Some(ranked.log_prob)),
            ranked.tokens.to_string(),
        ];
        let members = ranked.member_log_probs.iter().map(|log_prob| number(Some(*log_prob)));
        first
            .into_iter()
            .chain(members)
            .chain([text(ranked, candidates).map(quoted).unwrap_or_default()])
            .collect()
    });
    table(&header, &["candidate"], rows)
}

/// The text that was ranked here, where there was one.
pub(super) fn text<'a>(ranked: &RankedCandidate, candidates: &'a [Candidate]) -> Option<&'a str> {
    candidates.get(ranked.index as usize)?.text.as_deref()
}

/// What `--json` prints of a list.
pub(super) fn json_of(reply: &RankReply, candidates: &[Candidate]) -> Map<String, Value> {
    let ranked = reply.candidates.iter().map(|ranked| {
        let mut object = json!({
            "index": ranked.index,
            "text": text(ranked, candidates),
            "score": ranked.score,
            "log_prob": ranked.log_prob,
            "tokens": ranked.tokens,
            "members": ranked.member_log_probs,
        });
        if let Some(prior) = ranked.prior_log_prob {
            object["prior_log_prob"] = json!(prior);
        }
        object
    });
    let mut object = Map::new();
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("candidates".into(), ranked.collect());
    object.insert("computed_tokens".into(), json!(reply.computed_tokens));
    object.insert("total_tokens".into(), json!(reply.total_tokens));
    object.insert("cached_tokens".into(), json!(reply.cached_tokens));
    reply::insert_participation(&mut object, reply.participation.as_ref());
    object
}
