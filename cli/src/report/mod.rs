//! `chorus report`: one HTML file about a running ensemble, with pictures, made of what it says of a held-out text.

mod charts;
mod figures;
mod gather;
mod page;

use std::path::PathBuf;

use anyhow::Context as _;

use crate::client::{ConnectArgs, print_json};
use crate::failure::{UsageError, note};
use crate::learn::{CollectArgs, RunningEnsemble, can_be_replaced, replace};

const EXAMPLES: &str = "\
Examples:
  chorus report test.txt
  chorus report test.txt --out ensemble.html --folds 10

The file needs no network: pictures are inside. It shows the perplexity of each
member and of the ensemble by rule; the weights that are best, with their spread
over the folds; what each member brings (left out, and as Shapley value); what
is expected of every set that may be left when members are lost; whether who is
sure is right as often; and the accuracy of the vote by threshold.

The text goes through the ensemble several times: for one number a token and
member, for the likeliest tokens, and once for each rule that needs whole
distributions. What it says is kept in --cache, which `chorus tune` uses, too.";

/// Make an HTML report with pictures of how the running ensemble does on a text
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    collect: CollectArgs,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "report.html", help_heading = "Files")]
    out: PathBuf,
    /// Parts of the text over which weights are compared, at least 2
    #[arg(long, value_name = "K", default_value_t = 5)]
    folds: usize,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// The text or the output can't be used, the ensemble can't be reached or changed, or nothing can be learned from what it said.
pub(crate) async fn run(arguments: ReportArgs) -> anyhow::Result<()> {
    if arguments.folds < 2 {
        return Err(UsageError(format!("--folds is {}; allowed: at least 2", arguments.folds)).into());
    }
    let ensemble = RunningEnsemble::connect(&arguments.connect.server()?).await?;
    let shown = arguments.out.display();
    // Before hours are spent: whether there is a place for the result.
    can_be_replaced(&arguments.out).with_context(|| format!("can't write {shown}"))?;
    let text = arguments.collect.read(&ensemble)?;
    let figures = gather::gather(&arguments.collect, arguments.folds, &ensemble, &text).await?;
    if arguments.connect.json {
        print_json(&figures.json())?;
    }
    let page = page::page(&figures)?;
    replace(&arguments.out, page.as_bytes()).with_context(|| format!("can't write {shown}"))?;
    note(&format!("wrote {shown}; open it in a browser"));
    Ok(())
}
