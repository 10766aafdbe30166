//! A thread that calls: its runtime, its connections, its share of the load. Knows nothing about the other threads.

use std::{future::Future, io, rc::Rc, sync::Arc, thread, time::Duration};

use chorus_net::{Dialer, Wire};
use futures::Stream;
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::Instant,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Live, Load, Plan, RunError};
use crate::{
    arrivals::Poisson,
    cpu,
    drive::Driver,
    grpc::Connections,
    measure::Measurements,
    workload::{Calls, Workload},
};

/// What a thread gave.
pub(super) struct ThreadResult {
    pub(super) measurements: Measurements,
    /// Processor time from the first call to the last answer.
    pub(super) cpu: Duration,
    /// How long that was.
    pub(super) elapsed: Duration,
    /// Tokens that came.
    pub(super) tokens: u64,
}

/// A thread before it is started.
pub(super) struct LoadThread {
    plan: Plan,
    index: usize,
    workload: Arc<Workload>,
    ensemble: Dialer,
    live: Arc<Live>,
    stop: CancellationToken,
}

/// The two ends of a thread: whether it is connected, the word to start at a moment, and its result.
pub(super) type Ends =
    (oneshot::Receiver<Result<(), RunError>>, oneshot::Sender<Instant>, oneshot::Receiver<ThreadResult>);

/// The share of one thread.
enum Share {
    Places(usize),
    Rate { rate: f64, most_in_flight: usize },
}

impl LoadThread {
    pub(super) fn new(
        plan: &Plan,
        index: usize,
        workload: &Arc<Workload>,
        ensemble: &Dialer,
        live: &Arc<Live>,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            plan: plan.clone(),
            index,
            workload: Arc::clone(workload),
            ensemble: ensemble.clone(),
            live: Arc::clone(live),
            stop: stop.clone(),
        }
    }

    pub(super) fn spawn(self) -> io::Result<Ends> {
        let (connected, is_connected) = oneshot::channel();
        let (go, start) = oneshot::channel();
        let (give_result, result) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("load-{}", self.index)).spawn(move || {
            let work = self.work(connected, start);
            if let Some(result) = LocalSet::new().block_on(&runtime, work) {
                // Nobody waits any more where another thread could not connect.
                let _received = give_result.send(result);
            }
            // The connections' tasks must not keep the thread.
            runtime.shutdown_background();
        })?;
        Ok((is_connected, go, result))
    }

    async fn work(
        self,
        connected: oneshot::Sender<Result<(), RunError>>,
        start: oneshot::Receiver<Instant>,
    ) -> Option<ThreadResult> {
        let channels = match self.connect().await {
            Ok(channels) => channels,
            Err(error) => {
                let _received = connected.send(Err(RunError::Connect(error)));
                return None;
            }
        };
        connected.send(Ok(())).ok()?;
        let start = start.await.ok()?;
        // Counted for this thread alone, and passed on to whoever watches all.
        let own = Arc::new(Live::of(&self.live));
        let before = cpu::of_this_thread().unwrap_or_default();
        let measurements = self.drive(channels, start, &own).await;
        let cpu = cpu::of_this_thread().unwrap_or_default().saturating_sub(before);
        Some(ThreadResult { measurements, cpu, elapsed: start.elapsed(), tokens: own.token_count() })
    }

    async fn connect(&self) -> Result<Vec<Wire>, tonic::transport::Error> {
        let mut channels = Vec::new();
        for _ in 0..share(self.plan.connections, self.plan.threads, self.index).max(1) {
            channels.push(self.ensemble.connect().await?);
        }
        Ok(channels)
    }

    fn drive(
        &self,
        channels: Vec<Wire>,
        start: Instant,
        live: &Arc<Live>,
    ) -> impl Future<Output = Measurements> {
        let driver = Driver {
            target: Rc::new(Connections::new(channels, self.plan.timeout, Arc::clone(live))),
            calls: Calls::new(Arc::clone(&self.workload), self.index, self.plan.threads),
            start,
            window: self.plan.window,
            drain: self.plan.drain,
            stop: self.stop.clone(),
        };
        let share = self.share();
        let schedule = (self.workload.seed, self.index as u64, self.plan.window.until);
        async move {
            match share {
                Share::Places(places) => driver.closed_loop(places).await,
                Share::Rate { rate, most_in_flight } => {
                    let (seed, stream, until) = schedule;
                    let schedule = Poisson::new(rate, seed, ARRIVALS + stream);
                    let arrivals = in_time(schedule.take_while(move |time| *time < until), start);
                    driver.open_loop(arrivals, most_in_flight).await
                }
            }
        }
    }

    fn share(&self) -> Share {
        let of = |whole| share(whole, self.plan.threads, self.index);
        match self.plan.load {
            Load::Closed { concurrency } => Share::Places(of(concurrency)),
            Load::Open { rate, most_in_flight } => {
                Share::Rate { rate: rate / self.plan.threads as f64, most_in_flight: of(most_in_flight) }
            }
        }
    }
}

/// Streams of the seed from here on are for arrivals; those before, for calls.
const ARRIVALS: u64 = 1 << 32;

/// The part of a whole that one of several has: as equal as whole numbers can be.
fn share(whole: usize, threads: usize, index: usize) -> usize {
    whole / threads + usize::from(index < whole % threads)
}

/// The arrivals of a schedule, each when its time has come. A thread sleeps for them, since tokio's clock counts
/// milliseconds, which would be a part of every latency.
fn in_time(
    schedule: impl Iterator<Item = Duration> + Send + 'static,
    start: Instant,
) -> impl Stream<Item = Duration> {
    let (arrivals, stream) = mpsc::unbounded_channel();
    let start = start.into_std();
    thread::spawn(move || {
        for intended in schedule {
            let wait = (start + intended).saturating_duration_since(std::time::Instant::now());
            thread::sleep(wait);
            if arrivals.send(intended).is_err() {
                return;
            }
        }
    });
    UnboundedReceiverStream::new(stream)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[test]
    fn the_shares_of_all_threads_are_the_whole() {
        for (whole, threads) in [(0, 1), (1, 3), (10, 3), (64, 8)] {
            let shares: Vec<usize> = (0..threads).map(|index| share(whole, threads, index)).collect();
            assert_eq!(shares.iter().sum::<usize>(), whole);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[tokio::test]
    async fn no_arrival_comes_before_its_time_and_none_is_lost() {
        let start = Instant::now();
        let schedule: Vec<Duration> = Poisson::new(2000.0, 1, 0).take(100).collect();
        let mut arrivals = Box::pin(in_time(schedule.clone().into_iter(), start));
        for expected in schedule {
            assert_eq!(arrivals.next().await, Some(expected));
            assert!(start.elapsed() >= expected);
        }
        assert_eq!(arrivals.next().await, None);
    }
}
