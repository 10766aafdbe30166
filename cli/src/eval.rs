//! `chorus eval`: how well one model predicts a text, in one process and without servers. The state is carried
//! through the whole text, or through each of `--lanes` parts of it.

use std::f64::consts::LN_2;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use chorus_model::{Evaluation, LanguageModel, evaluate, evaluate_in_lanes, evaluate_lines, open_device};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::client::print;
use crate::compute::ComputeArgs;
use crate::line_text::{self, LineRules};
use crate::text_file::{self, LARGEST_DATA, Text};

const EXAMPLES: &str = "\
Examples:
  chorus eval --model deploy/demo/alto test.txt
  chorus eval --model alto test.txt --json | jq .perplexity
  chorus eval --model alto test.txt --lanes 64
  chorus eval --model alto test.txt --precision int8
  chorus eval --model alto test.txt --quantize q4k
  chorus eval --model translator test.tsv --lines --loss-after '\\t'
  echo \"To be, or not to be\" | chorus eval --model alto -

The first token is predicted from what the model's config calls its start, every
other one from all before it:
nats per token = -(sum of ln P(token | everything before it)) / tokens,
perplexity = exp(nats per token).

Other programs evaluate in batches: the text cut into N equal parts that are
read side by side, each from a fresh state. --lanes N does the same (PyTorch's
`batchify`: the rest of the division is dropped, and the first token of a part
is read and not predicted), for a figure that can be held against theirs. It is
faster, and the figure is the higher the more lanes there are, since every part
begins with nothing to go by.

With --lines every line is read from the model's start and predicted up to the
end token of the model's config; lines without a token are left out.

With --json one object with the keys
  tokens, nats_per_token, bits_per_token, perplexity
and, of the text, so that models with different tokens can be compared,
  characters, nats_per_character, bits_per_character
or, with --lanes, which predicts not quite all of the text,
  lanes
or, with --lines,
  lines, nats_per_line";

/// More lanes than anybody evaluates in; a batch of them has room in memory.
const MAX_LANES: usize = 1024;

const PROGRESS: &str = "{bar:30} {percent:>3}%  {per_sec}  {eta} left";

/// Score a text with one model in this process: cross entropy and perplexity
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// The model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A UTF-8 text; `-` reads stdin
    file: PathBuf,
    /// Read the text as N parts side by side, each from a fresh state, as batched evaluations do
    #[arg(long, value_name = "N", value_parser = lanes)]
    lanes: Option<NonZeroUsize>,
    /// Score every line as a sequence of its own, from the model's start to its end token, as `chorus train --lines`
    /// learns them
    #[arg(long, conflicts_with = "lanes")]
    lines: bool,
    /// Score only what stands after the first TEXT of each line (`\t` is a tab), and its end
    #[arg(long, value_name = "TEXT", requires = "lines", value_parser = line_text::separator)]
    loss_after: Option<String>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the command answers; the keys are part of its interface.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    tokens: u64,
    nats_per_token: f64,
    bits_per_token: f64,
    perplexity: f64,
    #[serde(flatten)]
    reading: Reading,
}

/// What was predicted: all of a text, its lanes, or its lines.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Reading {
    Whole { characters: u64, nats_per_character: f64, bits_per_character: f64 },
    Lanes { lanes: NonZeroUsize },
    Lines { lines: u64, nats_per_line: f64 },
}

/// Runs the command.
///
/// # Errors
/// The text or the model can't be read, the text is empty or not expressible in the model's vocabulary, the device is
/// not there.
#[expect(clippy::needless_pass_by_value, reason = "every command's run takes its arguments")]
pub(crate) fn run(arguments: EvalArgs) -> anyhow::Result<()> {
    let Text { text, origin } = text_file::read(&arguments.file, LARGEST_DATA)?;
    arguments.compute.start()?;
    let device = open_device(&arguments.compute.device)?;
    let ComputeArgs { precision, quantize, .. } = arguments.compute;
    let model = LanguageModel::load_as(&arguments.model, &device, precision, quantize)?;
    if arguments.lines {
        return run_on_lines(&arguments, &model, &Text { text, origin });
    }
    let tokens = model.vocabulary().encode(&text).with_context(|| {
        format!("the vocabulary of {} can't express the text of {origin}", arguments.model.display())
    })?;
    let bar = ProgressBar::new(tokens.len() as u64).with_style(ProgressStyle::with_template(PROGRESS)?);
    let progress = |done| bar.set_position(done);
    let evaluation = match arguments.lanes {
        None => evaluate(&model, &tokens, progress)?,
        Some(lanes) => evaluate_in_lanes(&model, &tokens, lanes, progress)?,
    };
    bar.finish_and_clear();
    check_finite(&evaluation, &arguments, &origin)?;
    let report = match arguments.lanes {
        None => Report::of_text(&evaluation, text.chars().count() as u64),
        Some(lanes) => Report::of_lanes(&evaluation, lanes),
    };
    let Some(report) = report else {
        bail!("{}", nothing_to_score(&origin, tokens.len(), arguments.lanes));
    };
    show(&report, arguments.json)
}

/// Scores every line by itself.
fn run_on_lines(arguments: &EvalArgs, model: &LanguageModel, text: &Text) -> anyhow::Result<()> {
    let (directory, origin) = (arguments.model.display(), &text.origin);
    let Some(end) = model.config().end else {
        bail!("{directory} has no end token, so it does not know lines: its config.json says \"end\": null");
    };
    let rules = LineRules { separator: arguments.loss_after.as_deref(), longest: usize::MAX };
    let lines = line_text::lines(text, model.vocabulary(), &rules)?;
    let bar = ProgressBar::new(lines.len() as u64).with_style(ProgressStyle::with_template(PROGRESS)?);
    let evaluation = evaluate_lines(model, &lines, end, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    check_finite(&evaluation, arguments, origin)?;
    let Some(report) = Report::of_lines(&evaluation, lines.len() as u64) else {
        bail!("{origin} has no line with a token: there is nothing to score");
    };
    show(&report, arguments.json)
}

fn check_finite(evaluation: &Evaluation, arguments: &EvalArgs, origin: &str) -> anyhow::Result<()> {
    if !evaluation.nats.is_finite() {
        bail!("the logits of {} are not finite somewhere in {origin}", arguments.model.display());
    }
    Ok(())
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&format!("{}\n", serde_json::to_string(report)?));
    }
    print(&report.table())
}

/// Why there is no report.
fn nothing_to_score(origin: &str, tokens: usize, lanes: Option<NonZeroUsize>) -> String {
    match lanes {
        Some(lanes) if tokens > 0 => {
            format!("{origin} has {tokens} tokens, too few for --lanes {lanes}: each lane needs at least 2")
        }
        _ => format!("{origin} has no token: there is nothing to score"),
    }
}

/// `--lanes`, within its range.
fn lanes(argument: &str) -> Result<NonZeroUsize, String> {
    let number = argument.parse().ok().filter(|lanes: &NonZeroUsize| lanes.get() <= MAX_LANES);
    number.ok_or_else(|| format!("a whole number from 1 to {MAX_LANES} is needed"))
}

impl Report {
    /// Of a whole text; none for a text without tokens, which has no mean.
    fn of_text(evaluation: &Evaluation, characters: u64) -> Option<Self> {
        let nats_per_character = evaluation.nats / characters as f64;
        let bits_per_character = nats_per_character / LN_2;
        Self::new(evaluation, Reading::Whole { characters, nats_per_character, bits_per_character })
    }

    /// Of a text's lanes; none where they are too short to predict anything.
    fn of_lanes(evaluation: &Evaluation, lanes: NonZeroUsize) -> Option<Self> {
        Self::new(evaluation, Reading::Lanes { lanes })
    }

    /// Of lines that are sequences of their own; none where there is none.
    fn of_lines(evaluation: &Evaluation, lines: u64) -> Option<Self> {
        Self::new(evaluation, Reading::Lines { lines, nats_per_line: evaluation.nats / lines as f64 })
    }

    fn new(evaluation: &Evaluation, reading: Reading) -> Option<Self> {
        let nats_per_token = evaluation.nats_per_token()?;
        Some(Self {
            tokens: evaluation.tokens,
            nats_per_token,
            bits_per_token: nats_per_token / LN_2,
            perplexity: nats_per_token.exp(),
            reading,
        })
    }

    fn table(&self) -> String {
        let Self { tokens, nats_per_token, bits_per_token, perplexity, reading } = self;
        let reading = match reading {
            Reading::Whole { characters, nats_per_character, bits_per_character } => format!(
                "characters  {characters}  ({nats_per_character:.4} nats, {bits_per_character:.4} bits each)"
            ),
            Reading::Lanes { lanes } => format!("lanes       {lanes}"),
            Reading::Lines { lines, nats_per_line } => {
                format!("lines       {lines}  ({nats_per_line:.4} nats each)")
            }
        };
        format!(
            "perplexity  {perplexity:.4}\n\
             tokens      {tokens}  ({nats_per_token:.4} nats, {bits_per_token:.4} bits each)\n\
             {reading}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_unit() {
        let report = Report::of_text(&Evaluation { tokens: 4, nats: 4.0 * LN_2 }, 8).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let near = |key: &str, value: f64| (json[key].as_f64().unwrap() - value).abs() < 1e-12;
        assert!(near("perplexity", 2.0) && near("bits_per_token", 1.0) && near("nats_per_token", LN_2));
        assert!(near("bits_per_character", 0.5) && near("nats_per_character", 0.5 * LN_2));
        assert!(json["tokens"] == 4 && json["characters"] == 8 && json.get("lanes").is_none());
        assert!(report.table().contains("2.0000"));
    }

    #[test]
    fn a_report_of_lanes_names_them_and_speaks_of_no_characters() {
        let lanes = lanes("2").unwrap();
        let report = Report::of_lanes(&Evaluation { tokens: 4, nats: 4.0 * LN_2 }, lanes).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["lanes"] == 2 && json["tokens"] == 4 && json.get("characters").is_none());
        assert!(report.table().contains("lanes       2"));
    }

    #[test]
    fn what_has_no_tokens_to_predict_has_no_report_and_says_why() {
        let nothing = Evaluation { tokens: 0, nats: 0.0 };
        assert_eq!(Report::of_text(&nothing, 0), None);
        assert!(nothing_to_score("a.txt", 0, None).contains("a.txt has no token"));
        let lanes = lanes("1024").unwrap();
        assert_eq!(Report::of_lanes(&nothing, lanes), None);
        let reason = nothing_to_score("a.txt", 9, Some(lanes));
        assert!(reason.contains("9 tokens") && reason.contains("--lanes 1024"), "{reason}");
    }

    #[test]
    fn lanes_have_a_range() {
        for wrong in ["0", "1025", "-1", "two", ""] {
            assert!(lanes(wrong).unwrap_err().contains("from 1 to 1024"));
        }
    }
}
