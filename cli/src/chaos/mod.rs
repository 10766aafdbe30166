//! `chorus chaos`: an ensemble of processes on this machine under load, and everything that can happen to its workers, one after
//! the other: killed, frozen, cut off, restarted, lying. A table says what the callers noticed.
//!
//! The campaign is here: what is done when, and what is measured. Processes, callers and the table are in their own files.

mod callers;
mod fault;
mod relay;
mod report;
mod stage;

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::print,
    compute::ComputeArgs,
    failure::{Interrupted, note},
    shutdown::Shutdown,
    up::find_models,
};

use callers::{Callers, Noticed};
use fault::Fault;
use report::{Campaign, Row};
use stage::Stage;

const EXAMPLES: &str = "\
Examples:
  chorus chaos
  chorus chaos --replicas 1
  chorus chaos --streams 32 --each 20s --json | jq .faults

Starts an ensemble of its own, with --replicas workers for each model, and
callers that generate all the time, each with a seed of its own whose text is
known from before. Then, one after the other, workers are killed (kill -9),
frozen (SIGSTOP), cut off (their packets vanish), restarted in order, and one
that answers lies joins. For each the table has
  requests     finished while it lasted, and of these how many failed
  wrong        that had all members and yet another text than before
  degraded     tokens without all members
  longest gap  between two tokens of any stream, and the 99th percentile
  whole after  the time until every worker is back
  taken over   sessions that went on elsewhere, and tokens read again for that

With two replicas a fault should cost no request, no token its members, and no
stream a gap of more than three times the 99th percentile without faults and
the time in which a silent worker is noticed (resilience.silence_ms). With one,
answers go on without the member: at once where its worker is dead, and after
resilience.degrade_after_ms where nothing comes from it.

With --json one object with the keys
  streams, replicas, silence_ms
  faults  [{fault, requests, failed, wrong, tokens, degraded_tokens,
          longest_gap_ms, p99_gap_ms, whole_after_ms, takeovers,
          recomputed_tokens, hedges, first_missing, first_failure}]";

/// Kill, freeze and cut off the workers of an ensemble under load, and show what callers notice
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChaosArgs {
    /// A folder of model directories, or one model directory (default: the demo members, deploy/demo)
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Worker processes for each model
    #[arg(long, value_name = "N", default_value = "2")]
    replicas: NonZeroUsize,
    /// Generations at a time
    #[arg(long, value_name = "N", default_value = "16")]
    streams: NonZeroUsize,
    /// Tokens of each generation
    #[arg(long, value_name = "N", default_value = "200")]
    tokens: NonZeroUsize,
    /// How long each fault is watched at least
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    each: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A fault is given up on when the ensemble is not whole again after this long.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// A process can't be started, or the user did not wait for the end.
pub(crate) async fn run(arguments: ChaosArgs) -> anyhow::Result<()> {
    let models = find_models(arguments.models.as_deref())?;
    let shutdown = Shutdown::on_signals()?;
    let campaign = async {
        note(&format!("starting {} workers for each of {} models", arguments.replicas, models.len()));
        let mut stage = Stage::start(&models, arguments.replicas.get(), &arguments.compute).await?;
        let rows = campaign(&arguments, &mut stage).await;
        stage.stop(&shutdown.kill).await?;
        rows
    };
    let rows = tokio::select! {
        biased;
        () = shutdown.drain.cancelled() => return Err(Interrupted.into()),
        rows = campaign => rows?,
    };
    let campaign = Campaign {
        streams: arguments.streams.get(),
        replicas: arguments.replicas.get(),
        silence_ms: stage::silence_ms(),
        faults: rows,
    };
    print(&if arguments.json { campaign.json()? } else { campaign.table() })
}

async fn campaign(arguments: &ChaosArgs, stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    let (streams, tokens) = (arguments.streams.get(), arguments.tokens.get());
    note(&format!("{streams} generations without faults, for their texts"));
    let callers = Callers::start(stage.address(), streams, u32::try_from(tokens)?).await?;
    let mut rows = Vec::new();
    for fault in Fault::all(arguments.replicas.get()) {
        note(fault.sentence());
        let before = stage.recovery().await?;
        callers.begin();
        let whole_after = endure(fault, stage, arguments.each).await?;
        let noticed: Noticed = callers.end();
        rows.push(Row::new(fault, &noticed, whole_after, &before, &stage.recovery().await?));
    }
    callers.stop().await;
    Ok(rows)
}

/// Lets a fault happen and waits until all are back; how long that took from its beginning, if it did.
async fn endure(fault: Fault, stage: &mut Stage, each: Duration) -> anyhow::Result<Option<Duration>> {
    let begin = Instant::now();
    fault.strike(stage, each).await?;
    let whole = timeout(WHOLE_WITHIN, stage.until_whole()).await;
    let whole_after = whole.is_ok().then(|| begin.elapsed());
    sleep((begin + each).saturating_duration_since(Instant::now())).await;
    Ok(whole_after)
}
