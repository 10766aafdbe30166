//! `chorus predict`: what the ensemble and each member expect after a prefix.

use chorus_proto::v1::{Candidate, PredictReply, PredictRequest};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{print, print_json, quoted, rule_name, table, warn_of_missing},
    fusion::FusionArgs,
    input_of, reply,
    traced::traced,
};
use crate::text_file::{LARGEST_REQUEST, read_argument};

const EXAMPLES: &str = "\
Examples:
  chorus predict \"ROMEO\"
  chorus predict \"To be, or not to \" --top-n 5
  chorus predict \"ROMEO\" --rule threshold_vote --threshold 0.1
  chorus predict \"ROMEO\" --json | jq '.candidates[0]'

With --json one object with the keys
  rule, candidates       of the ensemble: [{id, text, probability}], with votes
                         under threshold_vote
  members                [{name, weight, start, candidates}]
  cached_tokens          of the prefix, that nobody had to read
  participants, missing  names; [{name, reason}]";

/// Show the likeliest next tokens after a prefix, of the ensemble and of each member
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArgs {
    /// The text before the token, taken as it is; `-` reads stdin
    prefix: String,
    /// How many tokens to show (default: 10)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n: Option<u32>,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// The prefix can't be read, the ensemble can't be reached or refuses, or stdout can't be written.
pub(crate) async fn run(arguments: PredictArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.server()?;
    let request = PredictRequest {
        prefix: Some(input_of(read_argument(&arguments.prefix, LARGEST_REQUEST)?)),
        top_n: arguments.top_n,
        fusion: arguments.fusion.options()?,
    };
    let reply = connect(address)
        .await?
        .predict(traced(request))
        .await
        .map_err(|status| sentence_of_status(&status, address))?
        .into_inner();
    if arguments.connect.json {
        return print_json(&reply::predict(&reply));
    }
    warn_of_missing(reply.participation.as_ref());
    print(&prediction_table(&reply))
}

/// A row for each rank, a column for the ensemble and one for each member.
fn prediction_table(reply: &PredictReply) -> String {
    let ensemble = format!("ensemble ({})", rule_name(reply.rule));
    let mut header = vec!["rank", ensemble.as_str()];
    header.extend(reply.members.iter().map(|member| member.name.as_str()));
    let rows = reply.candidates.iter().enumerate().map(|(rank, candidate)| {
        let members = reply.members.iter().map(|member| member.candidates.get(rank));
        let cells = std::iter::once(Some(candidate)).chain(members);
        std::iter::once((rank + 1).to_string()).chain(cells.map(candidate_cell)).collect()
    });
    table(&header, &header, rows)
}

/// `0.2500 "e"`, with the votes where there are any.
fn candidate_cell(candidate: Option<&Candidate>) -> String {
    let Some(candidate) = candidate else {
        return String::new();
    };
    let votes = candidate.votes.map(|votes| format!(" votes {votes}")).unwrap_or_default();
    format!("{:.4} {}{votes}", candidate.probability, quoted(&candidate.text))
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{MemberPrediction, Rule};

    use super::*;

    fn candidate(text: &str, probability: f64, votes: Option<u32>) -> Candidate {
        Candidate { id: 0, text: text.into(), probability, votes }
    }

    #[test]
    fn each_model_has_a_column_and_each_rank_a_row() {
        let reply = PredictReply {
            candidates: vec![candidate("e", 0.5, None), candidate(" ", 0.25, None)],
            members: vec![MemberPrediction {
                name: "alto".into(),
                candidates: vec![candidate("e", 0.75, None)],
                ..MemberPrediction::default()
            }],
            rule: Rule::LogLinear.into(),
            ..PredictReply::default()
        };
        assert_eq!(
            prediction_table(&reply),
            concat!(
                " rank  ensemble (log_linear)  alto\n",
                " 1     0.5000 \"e\"             0.7500 \"e\"\n",
                " 2     0.2500 \" \"\n",
            )
        );
    }

    #[test]
    fn votes_stand_beside_the_probability() {
        assert_eq!(candidate_cell(Some(&candidate("e", 0.5, Some(3)))), "0.5000 \"e\" votes 3");
    }
}
