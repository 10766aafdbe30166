//! `chorus status`: the ensemble's members, their weights and health, and what applies to requests.

use chorus_proto::v1::{StatusReply, StatusRequest};

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
  quorum   {members, weight}
  limits   {max_input_tokens, max_generated_tokens, max_input_bytes,
           max_sessions, max_top_n, max_waiting, max_wait_ms,
           max_tokens_in_progress}
  vocabulary_size, vocabulary_fingerprint
  members  [{name, address, weight, health (connecting, up, down, refused),
           reason, model, architecture, parameters, device, start, sessions,
           traffic [{plan, bytes_sent, bytes_received, tokens, output_rows}]}]";

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
    let address = &arguments.connect.addr;
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
    print(&traffic_table(&reply))
}

/// What holds for the ensemble as a whole.
fn summary(reply: &StatusReply) -> String {
    let quorum = reply.quorum.unwrap_or_default();
    let limits = reply.limits.unwrap_or_default();
    let fingerprint: String = reply.vocabulary_fingerprint.chars().take(19).collect();
    format!(
        " serving     {}\n version     {}\n sessions    {} of at most {}, {} of at most {} waiting\n tokens      \
         {} of at most {} in progress\n rule        {} (threshold {})\n \
         quorum      at least {} of {} members, with {} of the weight\n vocabulary  {} tokens, {fingerprint}\n \
         limits      {} tokens in, {} tokens out, {} bytes of text\n\n",
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
    )
}

fn member_table(reply: &StatusReply) -> String {
    let header = [
        "member",
        "health",
        "weight",
        "sessions",
        "parameters",
        "model",
        "device",
        "start",
        "address",
        "reason",
    ];
    let rows = reply.members.iter().map(|member| {
        let model = match member.architecture.as_str() {
            "" => member.model.clone(),
            architecture => format!("{} ({architecture})", member.model),
        };
        let start = member.start.as_ref();
        vec![
            member.name.clone(),
            reply::health_name(member.health()),
            member.weight.to_string(),
            member.sessions.to_string(),
            member.parameters.to_string(),
            model,
            member.device.clone(),
            start.map(|start| start_name(Some(start))).unwrap_or_default(),
            member.address.clone(),
            member.reason.clone(),
        ]
    });
    let texts = ["health", "model", "device", "start", "address", "reason"];
    table(&header, &texts, rows)
}

/// What went over the members' links, for each plan; nothing before anything has.
fn traffic_table(reply: &StatusReply) -> String {
    let traffic = reply.members.iter().flat_map(|member| {
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
    use chorus_proto::v1::{MemberStatus, PlanTraffic, member_status::Health};

    use super::*;

    #[test]
    fn a_member_that_is_down_says_why() {
        let reply = StatusReply {
            members: vec![MemberStatus {
                name: "bass".into(),
                address: "http://127.0.0.1:9".into(),
                weight: 1.0,
                health: Health::Down.into(),
                reason: "connection refused".into(),
                ..MemberStatus::default()
            }],
            ..StatusReply::default()
        };
        let text = member_table(&reply);
        let row = text.lines().nth(1).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["bass", "down", "1", "0", "0", "http://127.0.0.1:9", "connection", "refused"]);
        assert!(summary(&reply).contains("no, below quorum"));
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
