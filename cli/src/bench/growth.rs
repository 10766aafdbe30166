//! `chorus bench growth`: what a token costs a coordinator, by members, vocabulary and sessions, over null workers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chorus_load::{
    Load, Plan,
    growth::{Line, Point},
    measure::Window,
    picture::draw_growth,
    workload::Workload,
};
use serde::Serialize;

use super::{
    args::{OutputArgs, WorkloadArgs, vocabulary},
    local::LocalEnsemble,
    measure::{coordinator_us_per_token, measure, status},
    table::milliseconds,
};
use crate::{
    client::{print, print_json, table},
    failure::{Interrupted, note},
    picture_file::write_picture,
    shutdown::Shutdown,
};

const EXAMPLES: &str = "\
Examples:
  chorus bench growth --picture growth.svg
  chorus bench growth --members 1,2,4,8 --vocabulary 256 --sessions 1,64
  chorus bench growth --rule log_linear         # dense rows from every member
  chorus bench growth --mix score --json | jq .lines

A point in whose time fewer than 50 tokens came is measured again, for longer.

A coordinator in a process of its own over members that answer at once, in this
process. Its cost is that process's time on the processors, user and system, of
all its threads (clock_getcpuclockid; Linux and FreeBSD), divided by the tokens
that came in the same time: it does not matter who else the processors serve.

First every number of members with every vocabulary, at the sessions of
--at-sessions; then every number of sessions, with --at-members members and
the vocabulary --at-vocabulary. For each vocabulary the straight line
  cost = base + per_member * members
is put through the points (least squares of relative distances). Residuals of
one sign in the middle and the other at both ends are a bend: a hidden term.

With --json one object with the keys
  by_members, by_sessions  [{members, vocabulary, sessions,
                           tokens_per_second, cpu_us_per_token}]
  lines  [{vocabulary, base, per_member, residuals [[members, share]]}]";

/// Measure what a token costs the coordinator, by members, vocabulary and sessions
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GrowthArgs {
    /// Numbers of members
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,3,8,16,64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    members: Vec<u32>,
    /// Sizes of the vocabulary
    #[arg(long, value_name = "V,...", value_delimiter = ',', default_value = "256,10000,33278,100000", value_parser = vocabulary)]
    vocabulary: Vec<u32>,
    /// Sessions at a time
    #[arg(long, value_name = "S,...", value_delimiter = ',', default_value = "1,4,16,64,256,1024", value_parser = clap::value_parser!(u32).range(1..=1024))]
    sessions: Vec<u32>,
    /// Sessions while members and vocabulary vary
    #[arg(long, value_name = "S", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    at_sessions: u32,
    /// Members while sessions vary
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1024))]
    at_members: u32,
    /// Vocabulary while sessions vary
    #[arg(long, value_name = "V", default_value_t = 10_000, value_parser = vocabulary)]
    at_vocabulary: u32,
    /// How long each point is measured, after a quarter of it
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A point with fewer tokens says little about one of them, and is measured again for longer.
const FEWEST_TOKENS: u64 = 50;
/// How many times as long as asked for: at first, and after each time in which too few tokens came.
const PATIENCE: [u32; 4] = [1, 4, 16, 64];

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Growth {
    by_members: Vec<Point>,
    lines: Vec<Line>,
    by_sessions: Vec<Point>,
}

/// Where a point is.
#[derive(Debug, Clone, Copy)]
struct Place {
    members: u32,
    vocabulary: u32,
    sessions: u32,
}

/// Runs the command.
///
/// # Errors
/// A point could not be measured.
pub(super) async fn run(arguments: GrowthArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let sessions = arguments.at_sessions;
    let vocabularies = arguments.vocabulary.iter().copied();
    let by_members = vocabularies.flat_map(|vocabulary| {
        arguments.members.iter().map(move |&members| Place { members, vocabulary, sessions })
    });
    let (members, vocabulary) = (arguments.at_members, arguments.at_vocabulary);
    let by_sessions = arguments.sessions.iter().map(|&sessions| Place { members, vocabulary, sessions });
    let by_members = points(by_members, &arguments, &shutdown).await?;
    let by_sessions = points(by_sessions, &arguments, &shutdown).await?;
    let growth = Growth { lines: Line::of_each_vocabulary(&by_members), by_members, by_sessions };
    show(&growth, &arguments.output)?;
    if shutdown.drain.is_cancelled() { Err(Interrupted.into()) } else { Ok(()) }
}

/// The points of all places, or of those that were reached before the user stopped it.
async fn points(
    places: impl Iterator<Item = Place>,
    arguments: &GrowthArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<Vec<Point>> {
    let mut points = Vec::new();
    for place in places {
        let Some(point) = point(place, arguments, shutdown).await? else {
            break;
        };
        let Place { members, vocabulary, sessions } = place;
        note(&format!(
            "{members:>4} members  V {vocabulary:>6}  {sessions:>4} sessions  {:>9.1} us/token  {:>8.0} tokens/s",
            point.cpu_us_per_token, point.tokens_per_second
        ));
        points.push(point);
    }
    Ok(points)
}

/// One point; none where the user stopped it.
async fn point(place: Place, arguments: &GrowthArgs, shutdown: &Shutdown) -> anyhow::Result<Option<Point>> {
    if shutdown.drain.is_cancelled() {
        return Ok(None);
    }
    let ensemble = LocalEnsemble::of_null_workers(place.members as usize, place.vocabulary).await?;
    let measured = measured(place, &ensemble, arguments, shutdown).await;
    ensemble.stop(&shutdown.kill).await?;
    measured
}

async fn measured(
    place: Place,
    ensemble: &LocalEnsemble,
    arguments: &GrowthArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Point>> {
    let workload: Arc<Workload> = arguments.workload.workload(&status(&ensemble.address).await?)?;
    let label = format!("{} members, V {}, {} sessions", place.members, place.vocabulary, place.sessions);
    let coordinator = ensemble.coordinator_id()?;
    for patience in PATIENCE {
        let plan = plan(place, arguments.duration.saturating_mul(patience), coordinator);
        let result = measure(&label, &ensemble.address, &plan, &workload, &shutdown.drain).await?;
        if result.interrupted {
            return Ok(None);
        }
        let tokens = result.measurements.volume.tokens();
        if tokens < FEWEST_TOKENS {
            continue;
        }
        let cpu_us_per_token = coordinator_us_per_token(&result)
            .with_context(|| format!("{label}: the system does not tell what a process costs"))?;
        return Ok(Some(Point {
            members: place.members as usize,
            vocabulary: place.vocabulary,
            sessions: place.sessions as usize,
            tokens_per_second: tokens as f64 / result.measured.as_secs_f64(),
            cpu_us_per_token,
        }));
    }
    bail!("{label}: fewer than {FEWEST_TOKENS} tokens came in the longest time; a longer --duration has more")
}

fn plan(place: Place, duration: Duration, coordinator: u32) -> Plan {
    let from = duration / 4;
    Plan {
        load: Load::Closed { concurrency: place.sessions as usize },
        window: Window { from, until: from.saturating_add(duration) },
        // Nothing that comes later is of interest.
        drain: Duration::ZERO,
        threads: 1,
        connections: 1,
        timeout: None,
        watched: Some(coordinator),
    }
}

fn show(growth: &Growth, output: &OutputArgs) -> anyhow::Result<()> {
    let Growth { by_members, lines, by_sessions } = growth;
    if let Some(path) = &output.picture {
        let title = "the coordinator alone, over null workers";
        write_picture(path, &draw_growth(title, by_members, lines, by_sessions)?)?;
    }
    if output.json {
        return print_json(growth);
    }
    print(&lines_table(lines))?;
    print("\n")?;
    print(&points_table(by_members))?;
    print("\n")?;
    print(&points_table(by_sessions))
}

fn lines_table(lines: &[Line]) -> String {
    let rows = lines.iter().map(|line| {
        let residuals = line.residuals.iter();
        let residuals: Vec<String> =
            residuals.map(|(members, share)| format!("{members}: {:+.0} %", share * 100.0)).collect();
        vec![
            line.vocabulary.to_string(),
            milliseconds(line.base),
            milliseconds(line.per_member),
            residuals.join("  "),
        ]
    });
    let header = ["vocabulary", "us a token", "and for each member", "measured against the line, by members"];
    table(&header, &["measured against the line, by members"], rows)
}

fn points_table(points: &[Point]) -> String {
    let rows = points.iter().map(|point| {
        vec![
            point.members.to_string(),
            point.vocabulary.to_string(),
            point.sessions.to_string(),
            milliseconds(point.cpu_us_per_token),
            milliseconds(point.cpu_us_per_token_and_member()),
            format!("{:.0}", point.tokens_per_second),
        ]
    });
    table(&["members", "vocabulary", "sessions", "us/token", "us/token/member", "tokens/s"], &[], rows)
}
