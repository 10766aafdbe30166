//! Closed and open loops against a scripted target, under a clock that only these tests turn.

use std::{cell::Cell, sync::Arc};

use chorus_proto::v1::GenerateRequest;
use futures::stream;
use tokio::task::LocalSet;
use tonic::Code;

use super::*;
use crate::{
    arrivals::Poisson,
    workload::{Delivery, Inputs, Workload},
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Answers one token after `service`; calls that come in the stall wait for its end first.
struct Scripted {
    start: Instant,
    service: Duration,
    stall: std::ops::Range<Duration>,
    in_flight: Cell<usize>,
    most_in_flight: Cell<usize>,
    failing: bool,
}

impl Scripted {
    fn new(service: Duration, stall: std::ops::Range<u64>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            start: Instant::now(),
            service,
            stall: seconds(stall.start)..seconds(stall.end),
            in_flight: Cell::new(0),
            most_in_flight: Cell::new(0),
            failing: false,
        }
    }
}

impl Target for Scripted {
    async fn call(&self, call: Call, on_token: &mut dyn FnMut()) -> Result<Answer, Failure> {
        assert!(matches!(call, Call::Generate(GenerateRequest { max_tokens: Some(1), .. })));
        self.in_flight.set(self.in_flight.get() + 1);
        self.most_in_flight.set(self.most_in_flight.get().max(self.in_flight.get()));
        if self.stall.contains(&self.start.elapsed()) {
            sleep_until(self.start + self.stall.end).await;
        }
        sleep(self.service).await;
        self.in_flight.set(self.in_flight.get() - 1);
        if self.failing {
            return Err(Failure { code: Code::Unavailable, message: "gone".to_owned() });
        }
        on_token();
        Ok(Answer::default())
    }
}

fn driver(target: Scripted, until: u64) -> Driver<Scripted> {
    let workload = Workload {
        mix: "generate".parse().unwrap(),
        inputs: Inputs::Random { vocabulary_size: 5 },
        prompt_tokens: "1".parse().unwrap(),
        max_tokens: "1".parse().unwrap(),
        delivery: Delivery::default(),
        score_tokens: "1".parse().unwrap(),
        sampling: None,
        fusion: None,
        seed: 1,
    };
    Driver {
        start: target.start,
        target: Rc::new(target),
        calls: Calls::new(Arc::new(workload), 0, 1),
        window: Window { from: Duration::ZERO, until: Duration::from_secs(until) },
        drain: Duration::from_secs(60),
        stop: CancellationToken::new(),
    }
}

/// Arrivals of a schedule, each when its time has come.
fn in_time(schedule: impl Iterator<Item = Duration>) -> impl Stream<Item = Duration> {
    let start = Instant::now();
    stream::iter(schedule).then(move |intended| async move {
        sleep_until(start + intended).await;
        intended
    })
}

fn near(found: Duration, expected: Duration) -> bool {
    // A histogram keeps three digits, and tokio's clock milliseconds.
    found.abs_diff(expected) <= 2 * MILLISECOND + expected / 500
}

/// The reason for open loops: a server that stalls for a second stalls everybody who comes in it. Callers of a closed loop
/// wait politely and ask less, so that the stall is one value of thousands and no percentile shows it.
#[tokio::test(start_paused = true)]
async fn a_stall_is_in_the_percentiles_of_an_open_loop_and_hardly_in_those_of_a_closed_one() {
    LocalSet::new()
        .run_until(async {
            let open = driver(Scripted::new(MILLISECOND, 2..3), 10);
            let open = open.open_loop(in_time(Poisson::new(200.0, 4, 0)), 1000).await;
            // A tenth of all arrivals came in the stall, and their waits are spread evenly over the second.
            assert!((1900..2100).contains(&open.calls.sent), "{}", open.calls.sent);
            assert_eq!((open.calls.answered, open.calls.not_sent), (open.calls.sent, 0));
            let at = |share| open.first_token.at(share).as_secs_f64();
            assert!(at(0.5) < 0.004, "{}", at(0.5));
            assert!((at(0.95) - 0.5).abs() < 0.15, "{}", at(0.95));
            assert!((at(0.99) - 0.9).abs() < 0.1, "{}", at(0.99));

            let closed = driver(Scripted::new(MILLISECOND, 2..3), 10);
            let closed = closed.closed_loop(2).await;
            assert!(closed.calls.sent > 5000, "{}", closed.calls.sent);
            assert!(closed.first_token.at(0.999) < 5 * MILLISECOND);
            assert!(near(closed.first_token.max(), Duration::from_secs(1) + MILLISECOND));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_made_late_has_waited() {
    LocalSet::new()
        .run_until(async {
            let late = Duration::from_millis(300);
            let start = Instant::now();
            // Should have started at 100 ms, and is heard of at 400 ms.
            let arrivals = stream::once(async move {
                sleep_until(start + Duration::from_millis(100) + late).await;
                Duration::from_millis(100)
            });
            let measured = driver(Scripted::new(20 * MILLISECOND, 9..9), 5).open_loop(arrivals, 10).await;
            assert!(near(measured.sent_late.max(), late));
            assert!(near(measured.generate.max(), late + 20 * MILLISECOND));
            assert!(near(measured.first_token.max(), late + 20 * MILLISECOND));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_sent_is_counted() {
    LocalSet::new()
        .run_until(async {
            let target = Scripted::new(Duration::from_secs(1), 9..9);
            let driver = driver(target, 2);
            let target = Rc::clone(&driver.target);
            let schedule = (0..20).map(|index| Duration::from_millis(50 * index));
            let measured = driver.open_loop(in_time(schedule), 3).await;
            assert_eq!(target.most_in_flight.get(), 3);
            // Three in the first second; those that come at a second find room again.
            assert_eq!((measured.calls.sent, measured.calls.not_sent), (3, 17));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_keeps_its_places_busy_and_stops_at_the_windows_end() {
    LocalSet::new()
        .run_until(async {
            let driver = driver(Scripted::new(100 * MILLISECOND, 9..9), 1);
            let target = Rc::clone(&driver.target);
            let measured = driver.closed_loop(4).await;
            assert_eq!(target.most_in_flight.get(), 4);
            assert_eq!((measured.calls.sent, measured.calls.answered), (40, 40));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_is_not_stormed() {
    LocalSet::new()
        .run_until(async {
            let target = Scripted { failing: true, ..Scripted::new(Duration::ZERO, 9..9) };
            let measured = driver(target, 1).closed_loop(1).await;
            assert!((50..=101).contains(&measured.calls.failed), "{}", measured.calls.failed);
            assert_eq!(measured.errors[&i32::from(Code::Unavailable)].example, "gone");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_end_are_given_up_and_said_to_be_unfinished() {
    LocalSet::new()
        .run_until(async {
            let start = Instant::now();
            let measured = driver(Scripted::new(Duration::from_secs(1000), 9..9), 1).closed_loop(2).await;
            assert_eq!((measured.calls.sent, measured.calls.unfinished()), (2, 2));
            assert_eq!(start.elapsed().as_secs(), 61, "the window and the drain");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_stop_ends_both_loops_at_once_with_what_they_have() {
    LocalSet::new()
        .run_until(async {
            let start = Instant::now();
            let stopping = |driver: &Driver<Scripted>| {
                let stop = driver.stop.clone();
                tokio::task::spawn_local(async move {
                    sleep(Duration::from_millis(1550)).await;
                    stop.cancel();
                });
            };
            let closed = driver(Scripted::new(100 * MILLISECOND, 9..9), 1000);
            stopping(&closed);
            let closed = closed.closed_loop(1).await;
            assert_eq!((closed.calls.answered, closed.calls.unfinished()), (15, 1));
            let open = driver(Scripted::new(100 * MILLISECOND, 99..99), 1000);
            stopping(&open);
            let arrivals = in_time((0..).map(Duration::from_secs));
            let open = open.open_loop(arrivals, 10).await;
            assert_eq!((open.calls.answered, open.calls.unfinished()), (2, 0));
            assert!(start.elapsed() < Duration::from_secs(4));
        })
        .await;
}
