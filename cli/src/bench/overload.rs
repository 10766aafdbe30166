//! `chorus bench --overload`: the most that an ensemble answers, and what it answers when it is asked for a multiple of that.

use std::sync::Arc;

use anyhow::bail;
use chorus_load::{
    Load, Plan,
    plateau::Plateau,
    report::{CallsReport, LatencyReport, Report},
    workload::Workload,
};
use chorus_proto::v1::{RequestLimits, StatusReply};
use serde::Serialize;

use super::{
    args::LoadTestArgs,
    measure::{measure, something_answered},
    table::milliseconds,
};
use crate::{
    client::{Address, print, print_json, table},
    failure::{Interrupted, note, warn},
    shutdown::Shutdown,
};

/// What is printed with `--json`; the keys are part of the interface.
#[derive(Debug, Serialize)]
struct Output {
    overload: f64,
    /// What was tried to find the maximum.
    steps: Vec<Step>,
    /// The goodput at the maximum and under overload, in turns.
    rounds: Vec<[f64; 2]>,
    /// Of the median rounds.
    maximum: Measured,
    overloaded: Measured,
    /// Of the goodput at the maximum, what is left under overload: the median of the rounds, whose two halves follow each other.
    goodput_share: f64,
    /// The highest goodput of all, in the search too.
    highest: f64,
    /// Of that, what is left under overload: what noise there is lowers it.
    share_of_highest: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Step {
    concurrency: usize,
    goodput: f64,
}

#[derive(Debug, Serialize)]
struct Measured {
    /// Calls a second that were made or should have been.
    offered: f64,
    /// Calls a second that were answered.
    goodput: f64,
    /// Of the calls that were made, those that were refused with RESOURCE_EXHAUSTED.
    refused_share: f64,
    report: Report,
}

/// Runs the search, then the maximum and the overload in turns, and shows the median of both: a machine that others use is
/// slower at one time than at another.
///
/// # Errors
/// The ensemble can't be reached, or answers nothing.
pub(super) async fn run(
    factor: f64,
    address: &Address,
    arguments: &LoadTestArgs,
    status: &StatusReply,
    workload: &Arc<Workload>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let (steps, concurrency) = search(address, arguments, workload, shutdown).await?;
    let most_in_flight = most_in_flight(status.limits.unwrap_or_default());
    let mut highest = steps.iter().map(|step| step.goodput).fold(0.0, f64::max);
    let (mut maxima, mut overloads) = (Vec::new(), Vec::new());
    for round in 1..=arguments.load.rounds {
        let plan = arguments.load.overload(Load::Closed { concurrency });
        let maximum = measured("at the maximum", address, &plan, workload, shutdown).await?;
        highest = highest.max(maximum.goodput);
        let rate = factor * maximum.goodput;
        let plan = arguments.load.overload(Load::Open { rate, most_in_flight });
        let overloaded = measured("under overload", address, &plan, workload, shutdown).await?;
        note(&format!("round {round}: {:.1} answers/s, then {:.1}", maximum.goodput, overloaded.goodput));
        maxima.push(maximum);
        overloads.push(overloaded);
    }
    let rounds =
        maxima.iter().zip(&overloads).map(|(maximum, overloaded)| [maximum.goodput, overloaded.goodput]);
    let rounds: Vec<[f64; 2]> = rounds.collect();
    let shares = rounds.iter().map(|[maximum, overloaded]| overloaded / maximum).collect();
    let goodput_share = median(shares, |share| *share);
    let (maximum, overloaded) = (median(maxima, |of| of.goodput), median(overloads, |of| of.goodput));
    let Some(((maximum, overloaded), goodput_share)) = maximum.zip(overloaded).zip(goodput_share) else {
        bail!("there were no rounds");
    };
    let share_of_highest = overloaded.goodput / highest;
    let output = Output {
        overload: factor,
        steps,
        rounds,
        maximum,
        overloaded,
        goodput_share,
        highest,
        share_of_highest,
    };
    if arguments.output.json {
        print_json(&output)?;
    } else {
        print(&shown(&output))?;
    }
    for caution in output.overloaded.report.cautions() {
        warn(&caution);
    }
    Ok(())
}

/// With how many callers a closed loop has the highest goodput, and what was tried.
async fn search(
    address: &Address,
    arguments: &LoadTestArgs,
    workload: &Arc<Workload>,
    shutdown: &Shutdown,
) -> anyhow::Result<(Vec<Step>, usize)> {
    let mut search = Plateau::new(arguments.load.callers());
    let mut steps = Vec::new();
    while let Some(concurrency) = search.next_callers() {
        let plan = arguments.load.overload(Load::Closed { concurrency });
        let label = format!("{concurrency} callers");
        let goodput = measured(&label, address, &plan, workload, shutdown).await?.goodput;
        note(&format!("{label:>18}  {goodput:.1} answers/s"));
        search.record(goodput);
        steps.push(Step { concurrency, goodput });
    }
    match search.highest() {
        Some((concurrency, _)) => Ok((steps, concurrency)),
        None => bail!("no call was answered in the measured time; a longer --duration has some"),
    }
}

/// The one in the middle by this figure; of two in the middle, the lower one.
fn median<T>(mut rounds: Vec<T>, figure: impl Fn(&T) -> f64) -> Option<T> {
    rounds.sort_by(|one, other| figure(one).total_cmp(&figure(other)));
    let middle = rounds.len().checked_sub(1)? / 2;
    rounds.into_iter().nth(middle)
}

async fn measured(
    label: &str,
    address: &Address,
    plan: &Plan,
    workload: &Arc<Workload>,
    shutdown: &Shutdown,
) -> anyhow::Result<Measured> {
    let result = measure(label, address, plan, workload, &shutdown.drain).await?;
    if result.interrupted {
        return Err(Interrupted.into());
    }
    let report = Report::new(plan, &result);
    something_answered(&report)?;
    let CallsReport { sent, not_sent, .. } = report.calls;
    let refused = report.errors.iter().filter(|error| error.code == "RESOURCE_EXHAUSTED");
    let refused: u64 = refused.map(|error| error.count).sum();
    Ok(Measured {
        offered: (sent + not_sent) as f64 / report.measured_seconds,
        goodput: report.per_second.answers,
        refused_share: refused as f64 / sent.max(1) as f64,
        report,
    })
}

/// More than can be in progress and wait, so that it is the ensemble that refuses and not this tool.
fn most_in_flight(limits: RequestLimits) -> usize {
    const LEAST: u32 = 1024;
    const MOST: u32 = 100_000;
    let held = limits.max_sessions.saturating_add(limits.max_waiting);
    held.saturating_mul(2).clamp(LEAST, MOST) as usize
}

fn shown(output: &Output) -> String {
    let overload = format!("{} times that", output.overload);
    let columns = [&output.maximum, &output.overloaded];
    let row = |name: &str, cell: &dyn Fn(&Measured) -> String| {
        std::iter::once(name.to_owned()).chain(columns.map(cell)).collect::<Vec<String>>()
    };
    let latency = |latency: Option<LatencyReport>, of: fn(&LatencyReport) -> f64| {
        latency.map_or_else(|| "-".to_owned(), |latency| milliseconds(of(&latency)))
    };
    let mut rows = vec![
        row("calls/s offered", &|of| format!("{:.1}", of.offered)),
        row("answers/s", &|of| format!("{:.1}", of.goodput)),
        row("refused", &|of| format!("{:.1} %", of.refused_share * 100.0)),
        row("failed otherwise", &|of| {
            let refused = of.refused_share * of.report.calls.sent as f64;
            format!("{:.0}", of.report.calls.failed as f64 - refused)
        }),
    ];
    for (name, of) in
        [("p50", (|latency| latency.p50) as fn(&LatencyReport) -> f64), ("p99", |latency| latency.p99)]
    {
        let all = columns.map(|column| &column.report.latency_ms);
        if all.iter().any(|latencies| latencies.generate.is_some()) {
            let name = format!("whole generation, {name} in ms");
            rows.push(row(&name, &|column| latency(column.report.latency_ms.generate, of)));
        }
        if all.iter().any(|latencies| latencies.score.is_some()) {
            let name = format!("whole scoring, {name} in ms");
            rows.push(row(&name, &|column| latency(column.report.latency_ms.score, of)));
        }
    }
    let mut text = table(&["", "at the maximum", &overload], &[], rows);
    text += &format!(
        "\n {:.1} % of the goodput at the maximum is left under overload (median of the rounds), {:.1} % of the highest that was seen \
         ({:.1} answers/s)\n",
        output.goodput_share * 100.0,
        output.share_of_highest * 100.0,
        output.highest
    );
    text
}
