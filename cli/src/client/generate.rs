//! `chorus generate`: continues a prompt and shows each piece of text as it comes.

use anyhow::bail;
use chorus_proto::v1::{GenerateReply, GenerateRequest, Participation, SamplingOptions};
use futures::{Stream, TryStreamExt as _};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{absence, number, print, print_json},
    fusion::FusionArgs,
    generate_lines::{self, LinesArgs},
    input_of, reply,
};
use crate::{
    failure::{note, warn},
    text_file::{LARGEST_REQUEST, read_argument},
    values::{number as any_number, seed},
};

const EXAMPLES: &str = "\
Examples:
  chorus generate \"ROMEO:\"
  chorus generate \"ROMEO:\" --max-tokens 200 --seed 7
  chorus generate \"ROMEO:\" --temperature 0                # greedy
  chorus generate \"ROMEO:\" --top-p 0.9 --stop $'\\n\\n'
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
                {count, by_weighted_average}
  participants  names of the members that are in this message
  missing       [{name, reason}] of those that are not; in the last message
                with tokens [[first, end]], where each was missing
  rejoined      names of those that take part again from this token on
  expectation   without some members, where weights were learned: perplexity,
                perplexity_of_all; of a vote accuracy, accuracy_of_all
  fallback      where it answered: name; in the last message tokens
  end           in the last message: reason (max_tokens, stop_string,
                end_token), prompt_tokens, generated_tokens, seed, rule
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
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    lines: LinesArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How a token is chosen from the fused distribution.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// The same seed gives the same text (default: the ensemble chooses one; see `end` of --json)
    #[arg(long, value_name = "S", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// 0 is greedy (default: 1)
    #[arg(long, value_name = "T", value_parser = any_number, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Only the K likeliest tokens (default: all)
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Only the likeliest tokens that together reach the probability P (default: 1, all)
    #[arg(long, value_name = "P", value_parser = any_number, allow_negative_numbers = true)]
    top_p: Option<f64>,
}

impl SamplingArgs {
    /// Nothing where nothing was given, since a vote refuses sampling options.
    fn options(&self) -> Option<SamplingOptions> {
        let given =
            self.seed.is_some() || self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some();
        given.then_some(SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
        })
    }
}

/// What is printed, and what was said about missing members.
struct Printer {
    json: bool,
    log_probs: bool,
    missing: Vec<String>,
    fallback: bool,
    at_line_start: bool,
}

/// Runs the command.
///
/// # Errors
/// The prompt can't be read, the ensemble can't be reached or refuses, or stdout can't be written.
pub(crate) async fn run(arguments: GenerateArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.addr;
    let request = GenerateRequest {
        prompt: None,
        max_tokens: arguments.max_tokens,
        stop: arguments.stop,
        sampling: arguments.sampling.options(),
        fusion: arguments.fusion.options()?,
        log_probs: arguments.log_probs,
    };
    if let Some(path) = &arguments.lines.lines {
        return generate_lines::run(&arguments.lines, path, request, &arguments.connect).await;
    }
    let prompt = read_argument(arguments.prompt.as_deref().unwrap_or_default(), LARGEST_REQUEST)?;
    let request = GenerateRequest { prompt: Some(input_of(prompt)), ..request };
    let mut printer = Printer {
        json: arguments.connect.json,
        log_probs: arguments.log_probs,
        missing: Vec::new(),
        fallback: false,
        at_line_start: true,
    };
    let refused = |status| sentence_of_status(&status, address);
    let replies = connect(address).await?.generate(request).await.map_err(refused)?.into_inner();
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
        let text = if self.log_probs { log_prob_line(reply) } else { reply.text.clone() };
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

    #[test]
    fn sampling_options_are_sent_only_where_one_was_given() {
        let mut arguments = SamplingArgs { seed: None, temperature: None, top_k: None, top_p: None };
        assert!(arguments.options().is_none());
        arguments.seed = Some(7);
        assert_eq!(arguments.options().and_then(|options| options.seed), Some(7));
    }

    #[tokio::test]
    async fn an_answer_without_its_last_message_is_no_success() {
        let piece = GenerateReply { token: Some(GeneratedToken::default()), ..GenerateReply::default() };
        let last = GenerateReply { end: Some(GenerationEnd::default()), ..GenerateReply::default() };
        for (replies, whole) in [(vec![piece.clone(), last], true), (vec![piece], false), (vec![], false)] {
            let mut printer = Printer {
                json: false,
                log_probs: false,
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
                votes: None,
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
