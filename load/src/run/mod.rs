//! One run: threads with connections of their own, a common start, one window, and what all of them measured.
//!
//! Each thread has a single-threaded runtime and shares nothing with the others but a few counters for whoever watches.
//! Knows nothing about how progress or results are shown.

pub(crate) mod live;
mod thread;

use std::{sync::Arc, time::Duration};

use chorus_net::Dialer;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cpu,
    measure::{Measurements, Window},
    workload::Workload,
};
pub use live::Live;
use thread::{LoadThread, ThreadResult};

/// How calls are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many callers, each of whom waits for an answer before asking again.
    Closed {
        /// Number of callers.
        concurrency: usize,
    },
    /// Poisson arrivals, whatever the server does.
    Open {
        /// Arrivals a second on average.
        rate: f64,
        /// Calls in flight at most; an arrival beyond that is counted and not sent.
        most_in_flight: usize,
    },
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Who calls.
    pub load: Load,
    /// What is measured.
    pub window: Window,
    /// How long calls may go on after the window.
    pub drain: Duration,
    /// Threads that call, at least 1.
    pub threads: usize,
    /// Connections over all threads; each has at least one.
    pub connections: usize,
    /// The deadline of every call.
    pub timeout: Option<Duration>,
    /// A process whose processor time over the window is wanted, by its id.
    pub watched: Option<u32>,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// What was counted.
    pub measurements: Measurements,
    /// How long was measured: the window, or less where the run was stopped.
    pub measured: Duration,
    /// It was stopped before its window was over.
    pub interrupted: bool,
    /// What this program itself cost.
    pub client: ClientCost,
    /// Processor time of the watched process in the window.
    pub watched_cpu: Option<Duration>,
}

/// Processor time of the threads that call, from the first call to the last answer. Where the system has no clock for it,
/// zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClientCost {
    /// Of all threads.
    pub cpu: Duration,
    /// The share of its time that the busiest thread computed, in [0, 1]. Near 1, what is measured is this program.
    pub busiest: f64,
    /// Tokens that came in this time, those of the warm-up too.
    pub tokens: u64,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nobody answers there.
    #[error("the connection could not be made")]
    Connect(#[source] tonic::transport::Error),
    /// The system gave no thread or runtime.
    #[error("a thread for the calls could not be started")]
    Thread(#[source] std::io::Error),
    /// A defect of this program.
    #[error("a thread that makes calls ended without a result")]
    Lost,
}

impl ClientCost {
    /// Processor time for each token, in microseconds; none where no token came.
    #[must_use]
    pub fn microseconds_per_token(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.cpu.as_secs_f64() * 1e6 / self.tokens as f64)
    }
}

/// Makes the calls of a workload as the plan has it, until its window and the drain are over or `stop` is cancelled.
/// `live` is told of what comes while it comes.
///
/// # Errors
/// No connection or no threads. Calls that fail are no error of the run.
pub async fn run(
    plan: &Plan,
    workload: &Arc<Workload>,
    ensemble: &Dialer,
    live: &Arc<Live>,
    stop: &CancellationToken,
) -> Result<RunResult, RunError> {
    // Threads that are left behind by an error end with this.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let mut waiting = Vec::new();
    for index in 0..plan.threads {
        let thread = LoadThread::new(plan, index, workload, ensemble, live, &stop);
        waiting.push(thread.spawn().map_err(RunError::Thread)?);
    }
    let mut running = Vec::new();
    for (connected, go, result) in waiting {
        connected.await.map_err(|_| RunError::Lost)??;
        running.push((go, result));
    }
    let start = Instant::now();
    let results: Vec<_> = running.into_iter().map(|(go, result)| started(go, start, result)).collect();
    let window = plan.window;
    let (watched_cpu, results) =
        tokio::join!(watched_cpu(plan.watched, start, window, &stop), collected(results, window));
    let (measurements, client) = results?;
    let interrupted = stop.is_cancelled() && start.elapsed() < window.until;
    let ended = if interrupted { start.elapsed() } else { window.until };
    let measured = ended.saturating_sub(window.from);
    Ok(RunResult { measurements, measured, interrupted, client, watched_cpu })
}

/// The result of a thread that runs.
type Pending = oneshot::Receiver<ThreadResult>;

fn started(go: oneshot::Sender<Instant>, start: Instant, result: Pending) -> Pending {
    // A thread that is gone has no result either, which is told below.
    let _received = go.send(start);
    result
}

async fn collected(results: Vec<Pending>, window: Window) -> Result<(Measurements, ClientCost), RunError> {
    let (mut all, mut client) = (Measurements::new(window), ClientCost::default());
    for result in results {
        let ThreadResult { measurements, cpu, elapsed, tokens } = result.await.map_err(|_| RunError::Lost)?;
        all.merge(&measurements);
        client.cpu += cpu;
        client.tokens += tokens;
        client.busiest = client.busiest.max(cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9));
    }
    Ok((all, client))
}

/// Processor time of a process in the window, or in as much of it as there was.
async fn watched_cpu(
    process: Option<u32>,
    start: Instant,
    window: Window,
    stop: &CancellationToken,
) -> Option<Duration> {
    let process = process?;
    let moment = async |at: Duration| {
        tokio::select! {
            () = sleep_until(start + at) => {}
            () = stop.cancelled() => {}
        }
        cpu::of_process(process).ok()
    };
    let before = moment(window.from).await?;
    let after = moment(window.until).await?;
    Some(after.saturating_sub(before))
}
