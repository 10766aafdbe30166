//! Makes calls of a [`Target`] on one thread, in a closed or an open loop. Time is tokio's, so that a test can turn it.
//!
//! Knows nothing about gRPC, and decides nothing about what is measured.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    measure::{Answer, Failure, Measurements, Watch, Window},
    workload::{Call, Calls},
};

#[cfg(test)]
mod tests;

/// How long a place of a closed loop waits after a failure, so that a server that refuses everything isn't stormed.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What can be called.
pub(crate) trait Target {
    /// Makes a call and waits for its end; tells of every generated token when it comes.
    async fn call(&self, call: Call, on_token: &mut dyn FnMut()) -> Result<Answer, Failure>;
}

/// How one thread makes its calls.
pub(crate) struct Driver<T> {
    /// Whom.
    pub(crate) target: Rc<T>,
    /// What.
    pub(crate) calls: Calls,
    /// The moment that all times are counted from.
    pub(crate) start: Instant,
    /// What is measured.
    pub(crate) window: Window,
    /// How long calls may go on after the window.
    pub(crate) drain: Duration,
    /// Ends everything at once.
    pub(crate) stop: CancellationToken,
}

/// What the calls in flight share.
struct Shared<T> {
    target: Rc<T>,
    start: Instant,
    measurements: RefCell<Measurements>,
}

impl<T: Target + 'static> Driver<T> {
    /// So many places, each of which makes its next call when the last one has ended. Needs a `LocalSet`.
    pub(crate) async fn closed_loop(self, places: usize) -> Measurements {
        let shared = self.shared();
        let calls = Rc::new(RefCell::new(self.calls));
        let mut running = JoinSet::new();
        for _ in 0..places {
            running.spawn_local(place(Rc::clone(&shared), Rc::clone(&calls), self.window));
        }
        drain(running, self.start + self.window.until + self.drain, &self.stop).await;
        taken(&shared)
    }

    /// A call at every arrival, a time since the start, whether or not earlier ones have ended; at most `most_in_flight`
    /// at a time. Needs a `LocalSet`.
    pub(crate) async fn open_loop(
        mut self,
        arrivals: impl Stream<Item = Duration>,
        most_in_flight: usize,
    ) -> Measurements {
        let shared = self.shared();
        let mut running = JoinSet::new();
        let over = sleep_until(self.start + self.window.until);
        tokio::pin!(arrivals, over);
        loop {
            tokio::select! {
                // An arrival that is due goes first: nothing that ends may delay it.
                biased;
                () = self.stop.cancelled() => break,
                arrival = arrivals.next() => {
                    let Some(intended) = arrival.filter(|intended| *intended < self.window.until) else {
                        break;
                    };
                    while running.try_join_next().is_some() {}
                    let Some(call) = (running.len() < most_in_flight).then(|| self.calls.next()).flatten() else {
                        shared.measurements.borrow_mut().not_sent(intended);
                        continue;
                    };
                    running.spawn_local(make(Rc::clone(&shared), call, intended));
                }
                () = &mut over => break,
            }
        }
        drain(running, self.start + self.window.until + self.drain, &self.stop).await;
        taken(&shared)
    }

    fn shared(&self) -> Rc<Shared<T>> {
        Rc::new(Shared {
            target: Rc::clone(&self.target),
            start: self.start,
            measurements: RefCell::new(Measurements::new(self.window)),
        })
    }
}

/// One caller of a closed loop, who waits for an answer before asking again.
async fn place<T: Target>(shared: Rc<Shared<T>>, calls: Rc<RefCell<Calls>>, window: Window) {
    while shared.start.elapsed() < window.until {
        let Some(call) = calls.borrow_mut().next() else {
            return;
        };
        let intended = shared.start.elapsed();
        if !make(Rc::clone(&shared), call, intended).await {
            sleep(AFTER_FAILURE).await;
        }
    }
}

/// One call; whether it succeeded.
async fn make<T: Target>(shared: Rc<Shared<T>>, call: Call, intended: Duration) -> bool {
    let now = || shared.start.elapsed();
    let mut watch = Watch::new(&shared.measurements, call.kind(), intended, now());
    let result = shared.target.call(call, &mut || watch.token(now())).await;
    let succeeded = result.is_ok();
    watch.end(now(), result);
    succeeded
}

/// Waits for what is in flight, for a while; what is left is unfinished.
async fn drain<R: 'static>(mut running: JoinSet<R>, until: Instant, stop: &CancellationToken) {
    let all = async { while running.join_next().await.is_some() {} };
    tokio::select! {
        _ = timeout_at(until, all) => {}
        () = stop.cancelled() => {}
    }
    running.shutdown().await;
}

fn taken<T>(shared: &Shared<T>) -> Measurements {
    let empty = Measurements::new(shared.measurements.borrow().window());
    shared.measurements.replace(empty)
}
