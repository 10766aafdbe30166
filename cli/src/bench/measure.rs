//! One run against one address: asked for its status first, shown while it goes on. Knows nothing about what runs there.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use chorus_load::{Live, Plan, RunResult, report::Report, workload::Workload};
use chorus_proto::v1::{StatusReply, StatusRequest};
use tokio_util::sync::CancellationToken;

use super::progress;
use crate::client::{Address, connect, dialer, sentence_of_status};

/// What the ensemble says of itself.
///
/// # Errors
/// Nobody answers, or it has no vocabulary yet: then nothing could be asked.
pub(super) async fn status(address: &Address) -> anyhow::Result<StatusReply> {
    let mut client = connect(address).await?;
    let status = client.status(StatusRequest {}).await;
    let status = status.map_err(|status| sentence_of_status(&status, address))?.into_inner();
    if !status.serving || status.vocabulary_size == 0 {
        bail!(
            "the ensemble at {address} does not serve: too few of its members are up (see \"chorus status\")"
        );
    }
    Ok(status)
}

/// Runs a plan, with a bar on a terminal.
///
/// # Errors
/// The ensemble can't be reached.
pub(super) async fn measure(
    label: &str,
    address: &Address,
    plan: &Plan,
    workload: &Arc<Workload>,
    stop: &CancellationToken,
) -> anyhow::Result<RunResult> {
    let live = Arc::new(Live::default());
    let ensemble = dialer(address)?;
    let run = chorus_load::run(plan, workload, &ensemble, &live, stop);
    tokio::select! {
        result = run => result.with_context(|| format!("the load on {address} broke off")),
        () = progress::show(label, plan, Arc::clone(&live)) => bail!("the progress ended before the run"),
    }
}

/// A run in which nothing was answered is a failure, and this is why.
///
/// # Errors
/// No call was answered.
pub(super) fn something_answered(report: &Report) -> anyhow::Result<()> {
    let calls = report.calls;
    if calls.answered > 0 || report.interrupted {
        return Ok(());
    }
    match report.errors.first() {
        Some(error) => {
            bail!(
                "none of {} calls was answered; the first failed with {}: {}",
                calls.sent,
                error.code,
                error.example
            )
        }
        None if calls.sent == 0 => {
            bail!("no call was made in the measured time; a longer --duration or a higher --rate has some")
        }
        None => bail!(
            "none of {} calls was answered in the time that they had; a longer --drain waits for them",
            calls.sent
        ),
    }
}

/// Processor time of the watched coordinator for each token that came in the window, in microseconds.
pub(super) fn coordinator_us_per_token(result: &RunResult) -> Option<f64> {
    let tokens = result.measurements.volume.tokens();
    let cpu = result.watched_cpu?;
    (tokens > 0).then(|| cpu.as_secs_f64() * 1e6 / tokens as f64)
}
