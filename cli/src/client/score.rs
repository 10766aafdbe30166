//! `chorus score`: how likely the ensemble and each of its members find a text.

use std::path::PathBuf;

use chorus_proto::v1::{ScoreReply, ScoreRequest, TokenScore, Votes};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{
        nats_per_character, number, print, print_json, quoted, rule_name, start_name, table, warn_of_missing,
    },
    fusion::FusionArgs,
    input_of, reply,
    traced::traced,
};
use crate::text_file::{self, LARGEST_REQUEST};

const EXAMPLES: &str = "\
Examples:
  chorus score play.txt
  chorus score play.txt --rule log_linear --json | jq .perplexity
  chorus score play.txt --rule threshold_vote --threshold 0.2
  echo \"To be, or not to be\" | chorus score - --per-token

The log-probability is the sum over all tokens of
log P(token | everything before it), with the natural logarithm;
perplexity = exp(-log-probability / tokens). Ensembles with different
tokens are compared by nats/character = -log-probability / characters.

With --json one object with the keys
  rule, tokens, characters
  log_prob, perplexity, nats_per_character
                         of the ensemble; not under threshold_vote
  votes                  under threshold_vote: winners (tokens that were the
                         rule's winner), votes
  members                [{name, weight, log_prob, perplexity,
                         nats_per_character, start}]
  participants, missing  names; [{name, reason}]
  expectation            without some members, where weights were learned:
                         perplexity, perplexity_of_all; of a vote accuracy,
                         accuracy_of_all
  fallback               {name}, where it answered instead
  token_scores           with --per-token: [{id, text, log_prob,
                         member_log_probs, votes, winner}]
A log-probability of minus infinity is null.";

/// Score a text: log-probability and perplexity, of the ensemble and of each member
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScoreArgs {
    /// A UTF-8 text; `-` reads stdin
    file: PathBuf,
    /// Add a row for each token
    #[arg(long)]
    per_token: bool,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// The file can't be read, the ensemble can't be reached or refuses, or stdout can't be written.
pub(crate) async fn run(arguments: ScoreArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.server()?;
    let text = text_file::read(&arguments.file, LARGEST_REQUEST)?.text;
    let characters = text.chars().count();
    let request = ScoreRequest {
        input: Some(input_of(text)),
        fusion: arguments.fusion.options()?,
        per_token: arguments.per_token,
    };
    let reply = connect(address)
        .await?
        .score(traced(request))
        .await
        .map_err(|status| sentence_of_status(&status, address))?
        .into_inner();
    if arguments.connect.json {
        return print_json(&reply::score(&reply, characters));
    }
    warn_of_missing(reply.participation.as_ref());
    print(&token_table(&reply))?;
    print(&score_table(&reply, characters))
}

/// The table: a row for the ensemble and one for each member.
fn score_table(reply: &ScoreReply, characters: usize) -> String {
    let tokens = reply.tokens.to_string();
    let ensemble = vec![
        format!("ensemble ({})", rule_name(reply.rule)),
        number(reply.log_prob),
        number(reply.perplexity),
        number(reply.log_prob.map(|log_prob| nats_per_character(log_prob, characters))),
        tokens.clone(),
        String::new(),
        String::new(),
    ];
    let members = reply.members.iter().map(|member| {
        vec![
            member.name.clone(),
            number(Some(member.log_prob)),
            number(Some(member.perplexity)),
            number(Some(nats_per_character(member.log_prob, characters))),
            tokens.clone(),
            number(Some(member.weight)),
            start_name(member.start.as_ref()),
        ]
    });
    let header = ["member", "log-probability", "perplexity", "nats/character", "tokens", "weight", "start"];
    let mut text = table(&header, &["start"], std::iter::once(ensemble).chain(members));
    if let Some(votes) = reply.votes {
        text.push_str(&format!(
            "\n {} of {} tokens are the rule's winner; the tokens that came have {} votes.\n",
            votes.winners, reply.tokens, votes.votes
        ));
    }
    text
}

/// With `--per-token` a row for each token, otherwise nothing.
fn token_table(reply: &ScoreReply) -> String {
    if reply.token_scores.is_empty() {
        return String::new();
    }
    let mut header = vec!["token", "id", "text"];
    header.push(if reply.votes.is_some() { "votes" } else { "ensemble" });
    header.extend(reply.members.iter().map(|member| member.name.as_str()));
    let rows = reply.token_scores.iter().enumerate().map(|(index, score)| {
        let mut row = vec![index.to_string(), score.id.to_string(), quoted(&score.text)];
        row.push(fused_cell(score));
        row.extend(score.member_log_probs.iter().map(|log_prob| number(Some(*log_prob))));
        row
    });
    format!("{}\n", table(&header, &["text"], rows))
}

/// The ensemble's log-probability of a token, or the votes that it got.
fn fused_cell(score: &TokenScore) -> String {
    let winner = if score.winner == Some(true) { "winner, " } else { "" };
    match score.votes {
        Some(Votes { count, .. }) => format!("{winner}{count}"),
        None => number(score.log_prob),
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{MemberScore, Rule, Start, VoteScore, start};

    use super::*;

    fn reply() -> ScoreReply {
        ScoreReply {
            tokens: 10,
            log_prob: Some(-12.5),
            perplexity: Some(3.490_342_957),
            members: vec![MemberScore {
                name: "alto".into(),
                log_prob: -14.0,
                perplexity: 4.0552,
                start: Some(Start { start: Some(start::Start::ZeroState(true)) }),
                weight: 1.0,
            }],
            rule: Rule::WeightedAverage.into(),
            ..ScoreReply::default()
        }
    }

    #[test]
    fn the_table_has_a_row_for_the_ensemble_and_each_member() {
        let lines: Vec<Vec<String>> = score_table(&reply(), 20)
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert_eq!(
            lines,
            [
                vec![
                    "member",
                    "log-probability",
                    "perplexity",
                    "nats/character",
                    "tokens",
                    "weight",
                    "start"
                ],
                vec!["ensemble", "(weighted_average)", "-12.5000", "3.4903", "0.6250", "10"],
                vec!["alto", "-14.0000", "4.0552", "0.7000", "10", "1.0000", "zero_state"],
            ]
        );
    }

    #[test]
    fn a_vote_has_a_sentence_instead_of_a_log_probability() {
        let reply = ScoreReply {
            log_prob: None,
            perplexity: None,
            votes: Some(VoteScore { winners: 7, votes: 21 }),
            ..reply()
        };
        let text = score_table(&reply, 20);
        assert!(
            text.ends_with("\n 7 of 10 tokens are the rule's winner; the tokens that came have 21 votes.\n")
        );
    }

    #[test]
    fn tokens_are_shown_only_when_they_were_asked_for() {
        assert_eq!(token_table(&reply()), "");
        let reply = ScoreReply {
            token_scores: vec![TokenScore {
                id: 3,
                text: "\n".into(),
                log_prob: Some(-1.25),
                member_log_probs: vec![-1.4],
                ..TokenScore::default()
            }],
            ..reply()
        };
        assert_eq!(
            token_table(&reply),
            " token  id  text  ensemble     alto\n 0       3  \"\\n\"   -1.2500  -1.4000\n\n"
        );
    }
}
