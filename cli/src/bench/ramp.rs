//! `chorus bench --ramp`: open loops at one rate after the other. Which rate comes next is `chorus-load`'s to decide.

use std::sync::Arc;

use anyhow::bail;
use chorus_load::{
    picture::draw_run,
    ramp::{Goal, Search, Verdict},
    report::Report,
    workload::Workload,
};
use serde::Serialize;

use super::{
    args::LoadTestArgs,
    measure::measure,
    table::{self, milliseconds},
};
use crate::{
    client::{Address, print, print_json},
    failure::{Interrupted, note},
    picture_file::write_picture,
    shutdown::Shutdown,
};

/// One rate that was tried; the keys are part of the interface.
#[derive(Serialize)]
struct Step {
    rate: f64,
    met: bool,
    /// Why not; null where it was met.
    reason: Option<String>,
    report: Report,
}

#[derive(Serialize)]
struct Output<'a> {
    goal: String,
    highest_rate: Option<f64>,
    steps: &'a [Step],
}

/// Runs the ramp and shows the highest rate that met the goal, with its report.
///
/// # Errors
/// The ensemble can't be reached, or no rate met the goal.
pub(super) async fn run(
    goal: Goal,
    address: &Address,
    arguments: &LoadTestArgs,
    workload: &Arc<Workload>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut search = Search::new(arguments.load.first_rate());
    let mut steps: Vec<Step> = Vec::new();
    let mut interrupted = false;
    while let Some(rate) = search.next_rate() {
        let plan = arguments.load.plan_at(rate);
        let label = format!("{rate:.2} calls/s");
        let result = measure(&label, address, &plan, workload, &shutdown.drain).await?;
        if result.interrupted {
            interrupted = true;
            break;
        }
        let verdict = goal.judge(&result.measurements);
        let met = matches!(verdict, Verdict::Met(_));
        let (said, reason) = match verdict {
            Verdict::Met(latency) => {
                (format!("met with {} ms", milliseconds(latency.as_secs_f64() * 1e3)), None)
            }
            Verdict::Missed(why) => (format!("missed: {why}"), Some(why)),
        };
        note(&format!("{label:>18}  {said}"));
        steps.push(Step { rate, met, reason, report: Report::new(&plan, &result) });
        search.record(met);
    }
    show(goal, &search, &steps, arguments)?;
    if interrupted {
        return Err(Interrupted.into());
    }
    if search.highest_met().is_none() {
        bail!("no rate met {goal}");
    }
    Ok(())
}

fn show(goal: Goal, search: &Search, steps: &[Step], arguments: &LoadTestArgs) -> anyhow::Result<()> {
    let highest_rate = search.highest_met();
    let best = steps.iter().rfind(|step| step.met);
    if let (Some(path), Some(best)) = (&arguments.output.picture, best) {
        let title = format!("the highest rate that meets {goal}");
        write_picture(path, &draw_run(&title, &best.report)?)?;
    }
    if arguments.output.json {
        return print_json(&Output { goal: goal.to_string(), highest_rate, steps });
    }
    let Some((rate, best)) = highest_rate.zip(best) else {
        return Ok(());
    };
    print(&format!(" {rate:.2} calls/s is the highest rate that met {goal}\n\n"))?;
    print(&table::report(&best.report))
}
