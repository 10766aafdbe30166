//! `chorus bench step`: where the time of one step goes when a single caller generates.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use chorus_load::{
    Load, Plan, RunResult,
    measure::{Latencies, Window},
    report::LatencyReport,
    steps_of_worker,
    workload::{Delivery, Inputs, Lengths, Mix, Workload},
};
use chorus_proto::v1::SamplingOptions;
use serde::Serialize;

use super::{
    in_process::InProcess,
    local::LocalEnsemble,
    measure::{coordinator_us_per_token, measure, status},
    table::milliseconds,
};
use crate::{
    client::{Address, dialer, print, print_json, table},
    compute::ComputeArgs,
    failure::Interrupted,
    shutdown::Shutdown,
    up::{ModelDirectory, find_models},
};

const EXAMPLES: &str = "\
Examples:
  chorus bench step
  chorus bench step --models my-models --duration 20s
  chorus bench step --json | jq .coordinator_share

One caller, greedy. For each member what a step lasts
  in process   the engine alone, called in this process
  over a hop   the worker's stream, dense row included, without a coordinator
then between two tokens of a generation through the coordinator, with all
members at once. The coordinator's own part (fusion, sampling, framing, its
system calls) is the processor time of its process for each token; its share is
that of the median time between tokens.

With --json one object with the keys
  members  [{name, in_process_ms, over_a_hop_ms}], latencies as of chorus bench
  through_coordinator_ms  between tokens
  coordinator_cpu_ms, coordinator_share";

/// Show where the time of one step goes: engine, hop, coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StepArgs {
    /// A folder of model directories, or one model directory (default: the demo members, deploy/demo)
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// How long generations are measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Steps of each member alone
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What is printed with `--json`; the keys are part of the interface.
#[derive(Debug, Serialize)]
struct Breakdown {
    members: Vec<MemberStep>,
    through_coordinator_ms: Option<LatencyReport>,
    /// Null where the system does not tell what a process costs.
    coordinator_cpu_ms: Option<f64>,
    coordinator_share: Option<f64>,
}

/// One member alone.
#[derive(Debug, Serialize)]
struct MemberStep {
    name: String,
    in_process_ms: Option<LatencyReport>,
    over_a_hop_ms: Option<LatencyReport>,
}

/// Tokens of one generation: many gaps for each prompt.
const GENERATED_TOKENS: u32 = 128;

/// Runs the command.
///
/// # Errors
/// The models can't be loaded or served.
pub(super) async fn run(arguments: StepArgs) -> anyhow::Result<()> {
    let models = find_models(arguments.models.as_deref())?;
    let shutdown = Shutdown::on_signals()?;
    arguments.compute.start()?;
    let (steps, warm_up) = (arguments.steps as usize, arguments.steps as usize / 10);
    // The models are let go before anything else is measured.
    let (in_process, tokens) = in_process(&models, &arguments.compute, steps, warm_up)?;
    let ensemble = LocalEnsemble::of_models(&models, &arguments.compute).await?;
    let measured = over_the_wire(&ensemble, &tokens, warm_up, arguments.duration, &shutdown).await;
    ensemble.stop(&shutdown.kill).await?;
    let (hops, through) = measured?;
    if through.interrupted {
        return Err(Interrupted.into());
    }
    let breakdown = breakdown(&models, &in_process, &hops, &through);
    if arguments.json { print_json(&breakdown) } else { print(&shown(&breakdown)) }
}

/// What a step lasts in each model, and the tokens that were fed.
fn in_process(
    models: &[ModelDirectory],
    compute: &ComputeArgs,
    steps: usize,
    warm_up: usize,
) -> anyhow::Result<(Vec<Latencies>, Vec<u32>)> {
    let in_process = InProcess::load(models, compute)?;
    let tokens = in_process.tokens().take(steps + warm_up).collect();
    Ok((in_process.steps(steps, warm_up)?, tokens))
}

async fn over_the_wire(
    ensemble: &LocalEnsemble,
    tokens: &[u32],
    warm_up: usize,
    duration: Duration,
    shutdown: &Shutdown,
) -> anyhow::Result<(Vec<Latencies>, RunResult)> {
    let mut hops = Vec::new();
    for address in &ensemble.members {
        let worker = dialer(&Address::from(*address))?;
        let steps = steps_of_worker(&worker, tokens.iter().copied(), warm_up).await;
        hops.push(steps.with_context(|| format!("the worker at {address} can't be measured"))?);
    }
    let status = status(&ensemble.address).await?;
    let plan = Plan {
        load: Load::Closed { concurrency: 1 },
        // A warm-up would leave out all gaps of a generation that began in it; a median does not mind the first ones.
        window: Window { from: Duration::ZERO, until: duration },
        drain: Duration::from_secs(30),
        threads: 1,
        connections: 1,
        timeout: None,
        watched: Some(ensemble.coordinator_id()?),
    };
    let workload = Arc::new(Workload {
        mix: Mix::only_generate(),
        inputs: Inputs::Random { vocabulary_size: status.vocabulary_size },
        prompt_tokens: Lengths::Fixed(1),
        max_tokens: Lengths::Fixed(GENERATED_TOKENS),
        delivery: Delivery::Streamed,
        score_tokens: Lengths::Fixed(1),
        sampling: Some(SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() }),
        fusion: None,
        seed: 1,
    });
    let through =
        measure("through the coordinator", &ensemble.address, &plan, &workload, &shutdown.drain).await?;
    Ok((hops, through))
}

fn breakdown(
    models: &[ModelDirectory],
    in_process: &[Latencies],
    hops: &[Latencies],
    through: &RunResult,
) -> Breakdown {
    let members = models.iter().zip(in_process.iter().zip(hops));
    let members = members.map(|(model, (in_process, hop))| MemberStep {
        name: model.name.clone(),
        in_process_ms: LatencyReport::of(in_process),
        over_a_hop_ms: LatencyReport::of(hop),
    });
    let through_coordinator_ms = LatencyReport::of(&through.measurements.inter_token);
    let coordinator_cpu_ms = coordinator_us_per_token(through).map(|cost| cost / 1e3);
    let share = |(cpu, step): (f64, LatencyReport)| cpu / step.p50;
    Breakdown {
        members: members.collect(),
        through_coordinator_ms,
        coordinator_cpu_ms,
        coordinator_share: coordinator_cpu_ms.zip(through_coordinator_ms).map(share),
    }
}

fn shown(breakdown: &Breakdown) -> String {
    let cells = |latency: &Option<LatencyReport>| {
        let latency = latency.as_ref().map(|latency| [latency.p50, latency.p99]);
        latency.map_or_else(|| ["-", "-"].map(str::to_owned), |values| values.map(milliseconds))
    };
    let mut rows = Vec::new();
    for member in &breakdown.members {
        for (what, latency) in [("in process", &member.in_process_ms), ("over a hop", &member.over_a_hop_ms)]
        {
            let name = format!("{} {what}", member.name);
            rows.push(std::iter::once(name).chain(cells(latency)).collect());
        }
    }
    let through = std::iter::once("through the coordinator".to_owned());
    rows.push(through.chain(cells(&breakdown.through_coordinator_ms)).collect());
    let mut text = table(&["a step, in milliseconds", "p50", "p99"], &[], rows);
    if let (Some(cpu), Some(share)) = (breakdown.coordinator_cpu_ms, breakdown.coordinator_share) {
        text += &format!(
            "\n the coordinator's own part: {} ms of processor time a step, {:.0} % of the step\n",
            milliseconds(cpu),
            share * 100.0
        );
    }
    text
}
