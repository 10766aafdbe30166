//! `chorus eval`: how well one model predicts a text, in one process and without servers. The state is carried
//! through the whole text.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_model::{Evaluation, LanguageModel, evaluate, open_device};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::client::print;

const EXAMPLES: &str = "\
Examples:
  chorus eval --model deploy/demo/alto test.txt
  chorus eval --model alto test.txt --json | jq .perplexity
  echo \"To be, or not to be\" | chorus eval --model alto -

The first token is predicted from what the model's config calls its start, every other one from
all before it: nats per token = -(sum of ln P(token | everything before it)) / tokens,
perplexity = exp(nats per token).

With --json one object with the keys
  tokens, nats_per_token, bits_per_token, perplexity
  characters, nats_per_character, bits_per_character
The last three are of the text, so that models with different tokens can be compared.";

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
    /// The device that computes: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
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
    characters: u64,
    nats_per_character: f64,
    bits_per_character: f64,
}

/// Runs the command.
///
/// # Errors
/// The text or the model can't be read, the text is empty or not expressible in the model's vocabulary, the device is
/// not there.
#[expect(clippy::needless_pass_by_value, reason = "every command's run takes its arguments")]
pub(crate) fn run(arguments: EvalArgs) -> anyhow::Result<()> {
    let (text, origin) = read(&arguments.file)?;
    let device = open_device(&arguments.device)?;
    let model = LanguageModel::load(&arguments.model, &device)?;
    let tokens = model.vocabulary().encode(&text).with_context(|| {
        format!("the vocabulary of {} can't express the text of {origin}", arguments.model.display())
    })?;
    let bar = ProgressBar::new(tokens.len() as u64).with_style(ProgressStyle::with_template(PROGRESS)?);
    let evaluation = evaluate(&model, &tokens, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let Some(report) = Report::new(&evaluation, text.chars().count() as u64) else {
        bail!("{origin} has no token: there is nothing to score");
    };
    if arguments.json {
        return print(&format!("{}\n", serde_json::to_string(&report)?));
    }
    print(&report.table())
}

/// The text of a file, or of stdin, and what to call it in a message.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let mut bytes = Vec::new();
    let origin = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("can't read stdin")?;
        "stdin".to_owned()
    } else {
        bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        file.display().to_string()
    };
    let text = String::from_utf8(bytes).with_context(|| format!("{origin} is not UTF-8 text"))?;
    Ok((text, origin))
}

impl Report {
    /// None for a text without tokens, which has no mean.
    fn new(evaluation: &Evaluation, characters: u64) -> Option<Self> {
        let nats_per_token = evaluation.nats_per_token()?;
        let nats_per_character = evaluation.nats / characters as f64;
        Some(Self {
            tokens: evaluation.tokens,
            nats_per_token,
            bits_per_token: nats_per_token / std::f64::consts::LN_2,
            perplexity: nats_per_token.exp(),
            characters,
            nats_per_character,
            bits_per_character: nats_per_character / std::f64::consts::LN_2,
        })
    }

    fn table(&self) -> String {
        let Self { tokens, nats_per_token, bits_per_token, perplexity, .. } = self;
        let Self { characters, nats_per_character, bits_per_character, .. } = self;
        format!(
            "perplexity  {perplexity:.4}\n\
             tokens      {tokens}  ({nats_per_token:.4} nats, {bits_per_token:.4} bits each)\n\
             characters  {characters}  ({nats_per_character:.4} nats, {bits_per_character:.4} bits each)\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_unit() {
        let evaluation = Evaluation { tokens: 4, nats: 4.0 * std::f64::consts::LN_2 };
        let report = Report::new(&evaluation, 8).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(report.perplexity, 2.0) && near(report.bits_per_token, 1.0));
        assert!(
            near(report.bits_per_character, 0.5)
                && near(report.nats_per_character, 0.5 * std::f64::consts::LN_2)
        );
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["tokens"] == 4 && json["characters"] == 8 && json["nats_per_token"].is_f64());
        assert!(report.table().contains("2.0000"));
    }

    #[test]
    fn a_text_without_tokens_has_no_report() {
        assert_eq!(Report::new(&Evaluation { tokens: 0, nats: 0.0 }, 0), None);
    }

    #[test]
    fn files_that_are_no_text_are_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notes.txt");
        assert!(read(&path).unwrap_err().to_string().contains("can't read"));
        std::fs::write(&path, b"ab\xff").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("notes.txt is not UTF-8"));
    }
}
