//! `chorus status`: the ensemble's members, their weights and health, and what applies to requests.

use chorus_proto::v1::{PrefixCacheStatus, Recovery, StatusReply, StatusRequest};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{print, print_json, rule_name, start_name, table},
    reply,
};

const EXAMPLES: &str = "\
Examples:
  chorus status
  chorus status --addr 10.0.0.1:50051
  chorus status --json | jq '.members[] | {name, health}'

With --json one object with the keys
  serving, version, sessions, waiting, tokens_in_progress, rule, threshold
  revision of the configuration: 1 at start, and one more with every change
  quorum   {members, weight}
  limits   {max_input_tokens, max_generated_tokens, max_input_bytes,
           max_sessions, max_top_n, max_beam_size,
           max_candidates, max_waiting, max_wait_ms,
           max_tokens_in_progress}
  vocabulary_size, vocabulary_fingerprint
  learned  {in_force, reason, rules}, where there are learned weights
  members  [{name, weight, health (connecting, up, down, refused), reason,
           model, model_fingerprint, architecture, parameters, start, sessions,
           replicas [{address, health, reason, device, version, sessions}],
           recovery {takeovers, recomputed_tokens, hedges, hedges_won},
           traffic [{plan, bytes_sent, bytes_received, tokens, output_rows}]}]
  fallback like a member, where there is one
  activity {generated_tokens, scored_tokens since the start; first_token,
           next_token of the last minute, each {count, p50_ms, p95_ms, p99_ms}}
  prefix_cache {entries, bytes, max_bytes, cached_tokens, read_tokens}";

/// Show members, weights, health, sessions and who waits
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// The ensemble can't be reached, or stdout can't be written.
pub(crate) async fn run(arguments: StatusArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.server()?;
    let reply = connect(address)
        .await?
        .status(StatusRequest {})
        .await
        .map_err(|status| sentence_of_status(&status, address))?
        .into_inner();
    if arguments.connect.json {
        return print_json(&reply::status(&reply));
    }
    print(&summary(&reply))?;
    print(&member_table(&reply))?;
    print(&replica_table(&reply))?;
    print(&recovery_table(&reply))?;
    print(&traffic_table(&reply))
}

/// What holds for the ensemble as a whole.
fn summary(reply: &StatusReply) -> String {
    let quorum = reply.quorum.unwrap_or_default();
    let limits = reply.limits.unwrap_or_default();
    let fingerprint: String = reply.vocabulary_fingerprint.chars().take(19).collect();
    let weights = match &reply.learned {
        None => "as configured".to_owned(),
        Some(learned) if learned.in_force => {
            let rules: Vec<String> = learned.rules.iter().map(|rule| rule_name(*rule)).collect();
            format!("learned for every set of members, under {}", rules.join(", "))
        }
        Some(learned) => format!("as configured; the learned ones are not used: {}", learned.reason),
    };
    format!(
        " serving     {}\n version     {}\n sessions    {} of at most {}, {} of at most {} waiting\n tokens      \
         {} of at most {} in progress\n rule        {} (threshold {})\n weights     {weights}\n \
         quorum      at least {} of {} members, with {} of the weight\n vocabulary  {} tokens, {fingerprint}\n \
         limits      {} tokens in, {} tokens out, {} bytes of text\n \
         prompts     {}\n\n",
        if reply.serving { "yes" } else { "no, below quorum" },
        reply.version,
        reply.sessions,
        limits.max_sessions,
        reply.waiting,
        limits.max_waiting,
        reply.tokens_in_progress,
        limits.max_tokens_in_progress,
        rule_name(reply.rule),
        reply.threshold,
        quorum.members,
        reply.members.len(),
        quorum.weight,
        reply.vocabulary_size,
        limits.max_input_tokens,
        limits.max_generated_tokens,
        limits.max_input_bytes,
        kept(&reply.prefix_cache.unwrap_or_default()),
    )
}

/// How much of what prompts began with was kept, and of use.
fn kept(cache: &PrefixCacheStatus) -> String {
    let PrefixCacheStatus { entries, bytes, max_bytes, cached_tokens, read_tokens } = *cache;
    if max_bytes == 0 {
        return "nothing is kept of them".to_owned();
    }
    let all = cached_tokens + read_tokens;
    let share = 100.0 * cached_tokens as f64 / all.max(1) as f64;
    format!(
        "{cached_tokens} of {all} tokens ({share:.1} %) did not have to be read; {entries} beginnings are kept in {:.1} of {:.1} MiB",
        mebibytes(bytes),
        mebibytes(max_bytes)
    )
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn member_table(reply: &StatusReply) -> String {
    let header = ["member", "health", "weight", "sessions", "parameters", "model", "start", "reason"];
    let fallback =
        reply.fallback.as_ref().map(|member| (format!("{} (fallback)", member.name), "-".to_owned(), member));
    let members = reply.members.iter().map(|member| (member.name.clone(), shown(member.weight), member));
    let rows = members.chain(fallback).map(|(name, weight, member)| {
        let model = match member.architecture.as_str() {
            "" => member.model.clone(),
            architecture => format!("{} ({architecture})", member.model),
        };
        let start = member.start.as_ref();
        vec![
            name,
            reply::health_name(member.health()),
            weight,
            member.sessions.to_string(),
            member.parameters.to_string(),
            model,
            start.map(|start| start_name(Some(start))).unwrap_or_default(),
            member.reason.clone(),
        ]
    });
    let texts = ["health", "model", "start", "reason"];
    table(&header, &texts, rows)
}

/// A weight as it was written, or of one that was learned the first digits.
fn shown(weight: f64) -> String {
    let rounded = (weight * 1e4).round() / 1e4;
    if rounded == 0.0 { weight.to_string() } else { rounded.to_string() }
}

/// The workers of each member.
fn replica_table(reply: &StatusReply) -> String {
    let replicas = reply.members.iter().chain(&reply.fallback).flat_map(|member| {
        member.replicas.iter().map(|replica| {
            vec![
                member.name.clone(),
                replica.address.clone(),
                reply::health_name(replica.health()),
                replica.sessions.to_string(),
                replica.device.clone(),
                replica.version.clone(),
                replica.reason.clone(),
            ]
        })
    });
    let header = ["member", "replica", "health", "sessions", "device", "version", "reason"];
    format!("\n{}", table(&header, &["replica", "health", "device", "version", "reason"], replicas))
}

/// What was done so that no loss shows; nothing before anything was.
fn recovery_table(reply: &StatusReply) -> String {
    let recoveries = reply.members.iter().filter_map(|member| {
        let recovery = member.recovery.filter(|recovery| *recovery != Recovery::default())?;
        Some(vec![
            member.name.clone(),
            recovery.takeovers.to_string(),
            recovery.recomputed_tokens.to_string(),
            recovery.hedges.to_string(),
            recovery.hedges_won.to_string(),
        ])
    });
    let rows: Vec<Vec<String>> = recoveries.collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(&["member", "takeovers", "tokens again", "hedges", "hedges won"], &[], rows))
}

/// What went over the members' links, for each plan; nothing before anything has.
fn traffic_table(reply: &StatusReply) -> String {
    let traffic = reply.members.iter().chain(&reply.fallback).flat_map(|member| {
        member.traffic.iter().map(|plan| {
            let bytes = (plan.bytes_sent + plan.bytes_received) as f64;
            vec![
                member.name.clone(),
                plan.plan.clone(),
                plan.tokens.to_string(),
                plan.output_rows.to_string(),
                plan.bytes_sent.to_string(),
                plan.bytes_received.to_string(),
                format!("{:.1}", bytes / plan.tokens.max(1) as f64),
            ]
        })
    });
    let rows: Vec<Vec<String>> = traffic.collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = ["member", "plan", "tokens", "output rows", "bytes sent", "bytes received", "bytes/token"];
    format!("\n{}", table(&header, &["plan"], rows))
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{MemberStatus, PlanTraffic, ReplicaStatus, member_status::Health};

    use super::*;

    #[test]
    fn a_member_that_is_down_says_why() {
        let reply = StatusReply {
            members: vec![MemberStatus {
                name: "bass".into(),
                weight: 1.0,
                health: Health::Down.into(),
                reason: "connection refused".into(),
                replicas: vec![ReplicaStatus {
                    address: "http://127.0.0.1:9".into(),
                    health: Health::Refused.into(),
                    reason: "another model".into(),
                    ..ReplicaStatus::default()
                }],
                ..MemberStatus::default()
            }],
            ..StatusReply::default()
        };
        let text = member_table(&reply);
        let row = text.lines().nth(1).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["bass", "down", "1", "0", "0", "connection", "refused"]);
        let text = replica_table(&reply);
        let words: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(words, ["bass", "http://127.0.0.1:9", "refused", "0", "another", "model"]);
        assert!(summary(&reply).contains("no, below quorum"));
    }

    #[test]
    fn what_is_kept_of_prompts_is_a_share_of_them() {
        assert_eq!(kept(&PrefixCacheStatus::default()), "nothing is kept of them");
        let cache = PrefixCacheStatus {
            entries: 3,
            bytes: 3 << 19,
            max_bytes: 64 << 20,
            cached_tokens: 30,
            read_tokens: 90,
        };
        let expected =
            "30 of 120 tokens (25.0 %) did not have to be read; 3 beginnings are kept in 1.5 of 64.0 MiB";
        assert_eq!(kept(&cache), expected);
    }

    #[test]
    fn what_was_done_is_shown_once_something_was() {
        let recovery = Recovery { takeovers: 3, recomputed_tokens: 17, hedges: 2, hedges_won: 1 };
        let member = |recovery| MemberStatus { name: "bass".into(), recovery, ..MemberStatus::default() };
        let reply = |recovery| StatusReply { members: vec![member(recovery)], ..StatusReply::default() };
        assert_eq!(recovery_table(&reply(Some(Recovery::default()))), "");
        let text = recovery_table(&reply(Some(recovery)));
        let words: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(words, ["bass", "3", "17", "2", "1"]);
    }

    #[test]
    fn traffic_is_shown_once_there_is_some() {
        let traffic = PlanTraffic {
            plan: "drawn".into(),
            bytes_sent: 100,
            bytes_received: 25,
            tokens: 10,
            output_rows: 4,
        };
        let member = |traffic| MemberStatus { name: "bass".into(), traffic, ..MemberStatus::default() };
        let reply = |traffic| StatusReply { members: vec![member(traffic)], ..StatusReply::default() };
        assert_eq!(traffic_table(&reply(vec![])), "");
        let text = traffic_table(&reply(vec![traffic]));
        let words: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(words, ["bass", "drawn", "10", "4", "100", "25", "12.5"]);
    }
}
