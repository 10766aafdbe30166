//! `chorus tune`: learns from a held-out text which weights, or which threshold, a running ensemble does best with.
//!
//! The mathematics is chorus-tune's; here a text goes through the ensemble, and what was learned is written down.

mod args;
mod average;
mod exponents;
mod file;
mod learned;
mod show;
mod vote;

use anyhow::Context as _;
use chorus_coordinator::fusion::Rule;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use args::TuneArgs;
pub(crate) use vote::candidates;

use crate::client::{print, print_json};
use crate::failure::{note, warn};
use crate::learn::{Collected, RunningEnsemble};
use file::WeightsFile;

/// Runs the command.
///
/// # Errors
/// The text or the output can't be used, the ensemble can't be reached or changed, or nothing can be learned from what it said.
pub(crate) async fn run(arguments: TuneArgs) -> anyhow::Result<()> {
    let method = arguments.method()?;
    let ensemble = RunningEnsemble::connect(&arguments.connect.server()?).await?;
    // Before hours are spent: whether what will be learned can be kept.
    let file = WeightsFile::open(&arguments.out, &ensemble.identity, arguments.replace)?;
    let text = arguments.collect.read(&ensemble)?;
    let learned = match arguments.rule {
        Rule::ThresholdVote => vote::learn(&arguments, &ensemble, &text).await?,
        Rule::LogLinear => exponents::learn(&arguments, method, &ensemble, &text).await?,
        _ => average::learn(&arguments, method, &ensemble, &text).await?,
    };
    file.write(arguments.rule, &learned)?;
    if arguments.connect.json {
        return print_json(&show::json(arguments.rule, &learned, file.path()));
    }
    print(&show::table(arguments.rule, &learned, &text.origin))?;
    note(&format!(
        "wrote {}; use it with `chorus coordinator --weights {}`",
        file.path().display(),
        file.path().display()
    ));
    Ok(())
}

/// Says what is not in the numbers.
fn warn_of_left_out(collected: &Collected) {
    if collected.left_out.is_empty() {
        return;
    }
    let tokens: usize = collected.left_out.iter().map(|part| part.tokens.len()).sum();
    let all = tokens + collected.parts.iter().map(|part| part.tokens.len()).sum::<usize>();
    warn(&format!("{tokens} of {all} tokens are left out: {}", collected.reason));
}

/// A bar for what is computed, where one can't say how much there is.
fn spinner(message: &str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {msg}").context("a progress bar can't be drawn")?;
    Ok(ProgressBar::new_spinner().with_style(style).with_message(message.to_owned()))
}
