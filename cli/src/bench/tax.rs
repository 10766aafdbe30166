//! `chorus bench tax`: what serving costs. The same models behind servers, and called in this process, in turns.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use chorus_load::{
    Load, Plan,
    measure::Window,
    workload::{Delivery, Inputs, Lengths, Mix, Workload},
};
use chorus_proto::v1::SamplingOptions;
use serde::Serialize;

use super::{
    in_process::{BatchShape, InProcess},
    local::LocalEnsemble,
    measure::{measure, status},
};
use crate::{
    client::{print, print_json, table},
    compute::ComputeArgs,
    failure::{Interrupted, note},
    shutdown::Shutdown,
    up::find_models,
};

const EXAMPLES: &str = "\
Examples:
  chorus bench tax
  chorus bench tax --models my-models --concurrency 64 --rounds 5
  chorus bench tax --json | jq .served_share

Generates greedily, in turns of --duration:
  served      a worker process for each model and a coordinator, as chorus up
              starts them, and as many callers as --concurrency
  in process  the models one after the other in this process, the same engine, a
              batch of as many sequences in lock step, fused as by a coordinator
Both have the machine to themselves. The share is that of the medians.

With --json one object with the keys
  models, concurrency, prompt_tokens, generated_tokens
  served, in_process  tokens a second of each round
  served_share        median(served) / median(in_process)";

/// Measure what serving costs: the same models behind servers and in one process
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TaxArgs {
    /// A folder of model directories, or one model directory (default: the demo members, deploy/demo)
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Callers, and sequences of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    prompt_tokens: u32,
    /// Tokens that are generated after it
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_tokens: u32,
    /// How long each turn is measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Turns of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What is printed with `--json`; the keys are part of the interface.
#[derive(Debug, Serialize)]
struct Tax {
    models: Vec<String>,
    concurrency: u32,
    prompt_tokens: u32,
    generated_tokens: u32,
    served: Vec<f64>,
    in_process: Vec<f64>,
    served_share: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// The models can't be loaded or served, or nothing was answered.
pub(super) async fn run(arguments: TaxArgs) -> anyhow::Result<()> {
    let models = find_models(arguments.models.as_deref())?;
    let shutdown = Shutdown::on_signals()?;
    arguments.compute.start()?;
    let in_process = Arc::new(InProcess::load(&models, &arguments.compute)?);
    let ensemble = LocalEnsemble::of_models(&models, &arguments.compute).await?;
    let measured = rounds(&arguments, &in_process, &ensemble, &shutdown).await;
    ensemble.stop(&shutdown.kill).await?;
    let tax = measured?;
    show(&tax, arguments.json)?;
    if shutdown.drain.is_cancelled() { Err(Interrupted.into()) } else { Ok(()) }
}

async fn rounds(
    arguments: &TaxArgs,
    in_process: &Arc<InProcess>,
    ensemble: &LocalEnsemble,
    shutdown: &Shutdown,
) -> anyhow::Result<Tax> {
    let workload = workload(arguments, status(&ensemble.address).await?.vocabulary_size);
    let plan = plan(arguments);
    let shape = BatchShape {
        sequences: arguments.concurrency as usize,
        prompt_tokens: arguments.prompt_tokens,
        generated_tokens: arguments.max_tokens,
    };
    let (mut served, mut called) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        let result = measure("served", &ensemble.address, &plan, &workload, &shutdown.drain).await?;
        if result.interrupted {
            break;
        }
        served.push(result.measurements.volume.generated_tokens as f64 / result.measured.as_secs_f64());
        let (models, time) = (Arc::clone(in_process), arguments.duration);
        let calling = tokio::task::spawn_blocking(move || models.tokens_per_second(shape, time));
        called.push(calling.await.context("the models could not be called")??);
        if let (Some(served), Some(called)) = (served.last(), called.last()) {
            note(&format!(
                "round {round}: served {served:.0} tokens/s, in process {called:.0}: {:.0} %",
                served / called * 100.0
            ));
        }
        if shutdown.drain.is_cancelled() {
            break;
        }
    }
    let served_share = median(&served).zip(median(&called)).map(|(served, called)| served / called);
    Ok(Tax {
        models: in_process.names(),
        concurrency: arguments.concurrency,
        prompt_tokens: arguments.prompt_tokens,
        generated_tokens: arguments.max_tokens,
        served,
        in_process: called,
        served_share,
    })
}

fn workload(arguments: &TaxArgs, vocabulary_size: u32) -> Arc<Workload> {
    Arc::new(Workload {
        mix: Mix::only_generate(),
        inputs: Inputs::Random { vocabulary_size },
        prompt_tokens: Lengths::Fixed(arguments.prompt_tokens),
        max_tokens: Lengths::Fixed(arguments.max_tokens),
        delivery: Delivery::Streamed,
        score_tokens: Lengths::Fixed(1),
        sampling: Some(SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() }),
        fusion: None,
        seed: 1,
    })
}

fn plan(arguments: &TaxArgs) -> Plan {
    let from = arguments.duration / 4;
    Plan {
        load: Load::Closed { concurrency: arguments.concurrency as usize },
        window: Window { from, until: from.saturating_add(arguments.duration) },
        drain: Duration::from_secs(30),
        threads: 1,
        connections: 1,
        timeout: None,
        watched: None,
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((upper + sorted[middle - 1]) / 2.0) }
}

fn show(tax: &Tax, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(tax);
    }
    let row = |name: &str, values: &[f64]| {
        let all: Vec<String> = values.iter().map(|value| format!("{value:.0}")).collect();
        let median = median(values).map_or_else(|| "-".to_owned(), |median| format!("{median:.0}"));
        vec![name.to_owned(), median, all.join("  ")]
    };
    let rows = [row("served", &tax.served), row("in process", &tax.in_process)];
    print(&table(&["tokens/s", "median", "rounds"], &["rounds"], rows))?;
    match tax.served_share {
        Some(share) => print(&format!(
            "\n served, {} have {:.0} % of the throughput that they have in one process\n",
            tax.models.join(", "),
            share * 100.0
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
