//! `chorus bench` itself: one load test of an address, of this tool, or of a coordinator over null workers.

use anyhow::Context as _;
use chorus_load::{Plan, RunResult, null::NullEnsemble, picture::draw_run, report::Report};
use serde::Serialize;

use super::{
    args::{LoadTestArgs, OutputArgs},
    local::LocalEnsemble,
    measure::{coordinator_us_per_token, measure, something_answered, status},
    overload, ramp, table,
};
use crate::{
    client::{Address, print, print_json},
    failure::{Interrupted, warn},
    picture_file::write_picture,
    shutdown::Shutdown,
};

/// How the figures of a null server are read.
const CEILING: &str = " ceiling     the server does nothing: no ensemble is measured at more than this throughput, unless by\n\
             \x20            more --threads\n";

/// What the coordinator cost; the keys are part of the interface.
#[derive(Debug, Clone, Copy, Serialize)]
struct CoordinatorCost {
    members: u32,
    vocabulary: u32,
    cpu_us_per_token: f64,
    cpu_us_per_token_and_member: f64,
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<CoordinatorCost>,
}

/// Runs the command.
///
/// # Errors
/// What is measured can't be reached or started, or answered nothing.
pub(super) async fn run(arguments: LoadTestArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let target = &arguments.target;
    if target.null_server {
        let server = NullEnsemble::start().context("the null server can't be started")?;
        at(&server.address()?.into(), "null server", &arguments, &shutdown).await?;
        return if arguments.output.json { Ok(()) } else { print(CEILING) };
    }
    let Some(members) = target.null_workers else {
        return at(&target.addr.secured_by(&target.security)?, "bench", &arguments, &shutdown).await;
    };
    let ensemble = LocalEnsemble::of_null_workers(members as usize, target.vocabulary).await?;
    let measured = over_null_workers(&ensemble, members, &arguments, &shutdown).await;
    measured.and(ensemble.stop(&shutdown.kill).await)
}

async fn at(
    address: &Address,
    label: &str,
    arguments: &LoadTestArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let status = status(address).await?;
    let workload = arguments.workload.workload(&status)?;
    if let Some(factor) = arguments.load.overload {
        return overload::run(factor, address, arguments, &status, &workload, shutdown).await;
    }
    if let Some(goal) = arguments.load.ramp {
        return ramp::run(goal, address, arguments, &workload, shutdown).await;
    }
    let plan = arguments.load.plan();
    let result = measure(label, address, &plan, &workload, &shutdown.drain).await?;
    show(&plan, &result, None, &title(label, address), &arguments.output)
}

async fn over_null_workers(
    ensemble: &LocalEnsemble,
    members: u32,
    arguments: &LoadTestArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    if arguments.load.ramp.is_some() || arguments.load.overload.is_some() {
        return at(&ensemble.address, "null workers", arguments, shutdown).await;
    }
    let workload = arguments.workload.workload(&status(&ensemble.address).await?)?;
    let plan = Plan { watched: Some(ensemble.coordinator_id()?), ..arguments.load.plan() };
    let result = measure("null workers", &ensemble.address, &plan, &workload, &shutdown.drain).await?;
    let vocabulary = arguments.target.vocabulary;
    let cost = coordinator_us_per_token(&result).map(|cost| CoordinatorCost {
        members,
        vocabulary,
        cpu_us_per_token: cost,
        cpu_us_per_token_and_member: cost / f64::from(members),
    });
    let title = format!("a coordinator over {members} null workers, V = {vocabulary}");
    show(&plan, &result, cost, &title, &arguments.output)
}

fn title(label: &str, address: &Address) -> String {
    format!("{label}: {}", address.to_string().trim_start_matches("http://"))
}

fn show(
    plan: &Plan,
    result: &RunResult,
    coordinator: Option<CoordinatorCost>,
    title: &str,
    output: &OutputArgs,
) -> anyhow::Result<()> {
    let report = Report::new(plan, result);
    if let Some(path) = &output.picture {
        write_picture(path, &draw_run(title, &report)?)?;
    }
    if output.json {
        print_json(&Output { report: &report, coordinator })?;
    } else {
        print(&table::report(&report))?;
        if let Some(cost) = coordinator {
            print(&format!(
                " coordinator {:.1} us of processor time a token, {:.2} a token and member\n",
                cost.cpu_us_per_token, cost.cpu_us_per_token_and_member
            ))?;
        }
    }
    for caution in report.cautions() {
        warn(&caution);
    }
    something_answered(&report)?;
    if result.interrupted { Err(Interrupted.into()) } else { Ok(()) }
}
