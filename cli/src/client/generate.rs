//! `chorus generate`: continues a prompt and shows each piece of text as it comes.

use anyhow::bail;
use chorus_proto::v1::{GenerateReply, GenerateRequest, GenerationEnd, Participation};
use futures::{Stream, TryStreamExt as _};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{absence, number, print, print_json},
    fusion::FusionArgs,
    generate_lines::{self, LinesArgs},
    input_of, reply,
    sampling::{BeamArgs, SamplingArgs},
    traced::traced,
};
use crate::{
    failure::{note, warn},
    text_file::{LARGEST_REQUEST, read_argument},
};

const EXAMPLES: &str = "\
Examples:
  chorus generate \"ROMEO:\"
  chorus generate \"ROMEO:\" --max-tokens 200 --seed 7
  chorus generate \"ROMEO:\" --temperature 0                # greedy
  chorus generate \"ROMEO:\" --top-p 0.9 --stop $'\\n\\n'
  chorus generate \"ROMEO:\" --repetition-penalty 1.2 --candidates 5
  chorus generate \"ROMEO:\" --beam 8 --length-penalty 0.6 --n-best 3
  chorus generate \"ROMEO:\" --only alto --only bass
  chorus generate \"ROMEO:\" --rule threshold_vote --threshold 0.2
  chorus generate \"ROMEO:\" --weight alto=2 --weight bass=1 --weight tenor=0
  chorus generate --lines prompts.txt --temperature 0 > answers.txt
  cat prompt.txt | chorus generate - --json | jq -j .text

The text goes to stdout as it comes, without the prompt, and ends with a line
end. Warnings (a member is missing) go to stderr.

With --json every message is one line with the keys
  text          text that became certain; all of them joined are the answer
  token         id, index; with --log-probs log_prob and members
                [{name, log_prob, weight}]; under threshold_vote votes
                {count, by_weighted_average}; with --candidates candidates
                [{id, text, probability, votes, members}], the last one each
                participant's own probability
  participants  names of the members that are in this message
  missing       [{name, reason}] of those that are not; in the last message
                with tokens [[first, end]], where each was missing
  rejoined      names of those that take part again from this token on
  expectation   without some members, where weights were learned: perplexity,
                perplexity_of_all; of a vote accuracy, accuracy_of_all
  fallback      where it answered: name; in the last message tokens
  end           in the last message: reason (max_tokens, stop_string,
                end_token), prompt_tokens, cached_prompt_tokens,
                generated_tokens, seed, rule; with --beam hypotheses
                [{text, tokens, log_prob, score, reason}]
With --lines every line of the output answers the same line of the file; with
--json it is one object with the keys prompt, text, participants, missing, end
and, with --log-probs, tokens.
Logarithms are natural; a log-probability of minus infinity is null.";

/// Continue a prompt and stream the text as it comes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// The text to continue, taken as it is; `-` reads stdin
    #[arg(required_unless_present = "lines")]
    prompt: Option<String>,
    /// Tokens to generate at most (default: 64)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<u32>,
    /// End before this string would appear; can be repeated
    #[arg(long, value_name = "STR")]
    stop: Vec<String>,
    /// Show every token with its log-probability, fused and for each member
    #[arg(long)]
    log_probs: bool,
    /// Show with every token the N likeliest in its place, and how likely each member holds them
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    candidates: Option<u32>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    beam: BeamArgs,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    lines: LinesArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is printed, and what was said about missing members.
struct Printer {
    json: bool,
    /// Every token has a line of its own.
    by_token: bool,
    /// Every sequence that a search found has one.
    by_sequence: bool,
    missing: Vec<String>,
    fallback: bool,
    at_line_start: bool,
}

/// Runs the command.
///
/// # Errors
/// The prompt can't be read, the ensemble can't be reached or refuses, or stdout can't be written.
pub(crate) async fn run(arguments: GenerateArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.server()?;
    let request = GenerateRequest {
        prompt: None,
        max_tokens: arguments.max_tokens,
        stop: arguments.stop,
        sampling: arguments.sampling.options(),
        fusion: arguments.fusion.options()?,
        log_probs: arguments.log_probs,
        candidates: arguments.candidates,
        beam: arguments.beam.options(),
    };
    if let Some(path) = &arguments.lines.lines {
        return generate_lines::run(&arguments.lines, path, request, &arguments.connect).await;
    }
    let prompt = read_argument(arguments.prompt.as_deref().unwrap_or_default(), LARGEST_REQUEST)?;
    let request = GenerateRequest { prompt: Some(input_of(prompt)), ..request };
    let mut printer = Printer {
        json: arguments.connect.json,
        by_token: arguments.log_probs || arguments.candidates.is_some(),
        by_sequence: arguments.beam.shows_all(),
        missing: Vec::new(),
        fallback: false,
        at_line_start: true,
    };
    let refused = |status| sentence_of_status(&status, address);
    let replies = connect(address).await?.generate(traced(request)).await.map_err(refused)?.into_inner();
    let ended = show_all(replies.map_err(refused), &mut printer).await;
    printer.finish()?;
    ended
}

/// Shows every message of an answer, which is whole only with its last one.
async fn show_all(
    replies: impl Stream<Item = anyhow::Result<GenerateReply>>,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut replies = std::pin::pin!(replies);
    let mut is_whole = false;
    while let Some(reply) = replies.try_next().await? {
        is_whole |= reply.end.is_some();
        printer.show(&reply)?;
    }
    if !is_whole {
        bail!("the answer broke off: its last message did not come");
    }
    Ok(())
}

impl Printer {
    fn show(&mut self, reply: &GenerateReply) -> anyhow::Result<()> {
        // The last message speaks of the whole generation, and everything in it was said when it happened.
        if reply.token.is_some() {
            self.warn_of_changes(reply.participation.as_ref());
        }
        if self.json {
            return print_json(&reply::generate(reply));
        }
        let text = if self.by_sequence {
            reply.end.as_ref().map(sequence_lines).unwrap_or_default()
        } else if self.by_token {
            token_lines(reply)
        } else {
            reply.text.clone()
        };
        if text.is_empty() {
            return Ok(());
        }
        self.at_line_start = text.ends_with('\n');
        print(&text)
    }

    /// One warning whenever the set of missing members changes.
    fn warn_of_changes(&mut self, participation: Option<&Participation>) {
        let Some(participation) = participation else {
            return;
        };
        let missing = participation.missing.iter().map(|member| member.name.clone()).collect();
        let fallback = participation.fallback.is_some();
        if missing == self.missing && fallback == self.fallback {
            return;
        }
        (self.missing, self.fallback) = (missing, fallback);
        self.end_line();
        if self.missing.is_empty() {
            warn("all members take part again");
        } else {
            warn(&format!("going on {}", absence(participation)));
        }
    }

    /// Where text and warnings meet in one terminal, a warning starts on a line of its own.
    fn end_line(&self) {
        use std::io::IsTerminal as _;
        let shared = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        if shared && !self.at_line_start {
            note("");
        }
    }

    fn finish(&self) -> anyhow::Result<()> {
        if self.json || self.at_line_start {
            return Ok(());
        }
        print("\n")
    }
}

/// One line for each sequence of a search: score, log-probability, tokens, text.
fn sequence_lines(end: &GenerationEnd) -> String {
    let lines = end.hypotheses.iter().map(|found| {
        let (score, log_prob) = (number(Some(found.score)), number(Some(found.log_prob)));
        format!("{score:>10}  {log_prob:>10}  {:>5}  {:?}\n", found.tokens.len(), found.text)
    });
    lines.collect()
}

/// A token's line, and one for each of the tokens in its place that were asked for: how likely it is, votes where there are
/// any, how likely each member holds it.
fn token_lines(reply: &GenerateReply) -> String {
    let names = reply.participation.iter().flat_map(|participation| &participation.participants);
    let names: Vec<&String> = names.collect();
    let candidates = reply.token.iter().flat_map(|token| &token.candidates).map(|candidate| {
        let members = names.iter().zip(&candidate.member_probabilities);
        let members: String =
            members.map(|(name, probability)| format!("  {name}={probability:.4}")).collect();
        let votes = candidate.votes.map(|votes| format!("  votes {votes}")).unwrap_or_default();
        let text = format!("{:?}", candidate.text);
        format!("{:>22} {:>10.4}    {text:<10}{votes}{members}\n", candidate.id, candidate.probability)
    });
    std::iter::once(log_prob_line(reply)).chain(candidates).collect()
}

/// One line for a token: index, id, log-probabilities or votes, and the text that became certain.
fn log_prob_line(reply: &GenerateReply) -> String {
    let Some(token) = &reply.token else {
        return if reply.text.is_empty() { String::new() } else { format!("{:>33}{:?}\n", "", reply.text) };
    };
    let fused = match &token.votes {
        Some(votes) if votes.by_weighted_average => "no votes".to_owned(),
        Some(votes) => format!("votes {}", votes.count),
        None => number(token.log_prob),
    };
    let members: String =
        token.members.iter().map(|member| format!("  {}={:.4}", member.name, member.log_prob)).collect();
    let text = format!("{:?}", reply.text);
    format!("{:>6}  id {:<7} {fused:>10}    {text:<10}{members}\n", token.index, token.id)
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{GeneratedToken, GenerationEnd, MemberLogProb, Votes};
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_its_last_message_is_no_success() {
        let piece = GenerateReply { token: Some(GeneratedToken::default()), ..GenerateReply::default() };
        let last = GenerateReply { end: Some(GenerationEnd::default()), ..GenerateReply::default() };
        for (replies, whole) in [(vec![piece.clone(), last], true), (vec![piece], false), (vec![], false)] {
            let mut printer = Printer {
                json: false,
                by_token: false,
                by_sequence: false,
                missing: Vec::new(),
                fallback: false,
                at_line_start: true,
            };
            let shown = show_all(stream::iter(replies.into_iter().map(Ok)), &mut printer).await;
            assert_eq!(shown.is_ok(), whole);
            assert!(shown.is_ok() || shown.unwrap_err().to_string().contains("broke off"));
        }
    }

    #[test]
    fn a_token_line_shows_the_fused_and_each_members_log_probability() {
        let reply = GenerateReply {
            token: Some(GeneratedToken {
                id: 12,
                index: 3,
                log_prob: Some(-0.25),
                members: vec![MemberLogProb { name: "alto".into(), log_prob: -0.5, weight: 1.0 }],
                ..GeneratedToken::default()
            }),
            text: "\n".into(),
            ..GenerateReply::default()
        };
        assert_eq!(log_prob_line(&reply), "     3  id 12         -0.2500    \"\\n\"        alto=-0.5000\n");
    }

    #[test]
    fn a_token_line_of_a_vote_shows_the_votes() {
        let reply = GenerateReply {
            token: Some(GeneratedToken {
                votes: Some(Votes { count: 2, by_weighted_average: false }),
                ..GeneratedToken::default()
            }),
            text: "a".into(),
            ..GenerateReply::default()
        };
        assert!(log_prob_line(&reply).contains("votes 2"));
    }
}
