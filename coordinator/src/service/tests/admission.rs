//! Requests that wait for a place: in which order they are served, and how each of them leaves the line.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::server::TcpConnectInfo;
use tonic_types::StatusExt as _;

use super::*;

type Scored = JoinHandle<Result<ScoreReply, Status>>;

/// What a request of this caller looks like to the service.
fn of_caller<T>(message: T, address: &str) -> Request<T> {
    let mut request = Request::new(message);
    let peer = SocketAddr::new(address.parse().unwrap(), 1);
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
    request
}

fn scoring(tokens: u32) -> ScoreRequest {
    let tokens: Vec<u32> = (0..tokens).map(|token| token % 8).collect();
    ScoreRequest { input: ids(&tokens), ..ScoreRequest::default() }
}

impl Stage {
    /// A scoring in a task of its own.
    fn spawn_score(&self, request: Request<ScoreRequest>) -> Scored {
        let service = self.service.clone();
        tokio::spawn(async move { service.score(request).await.map(tonic::Response::into_inner) })
    }

    /// Occupies a place until it is dropped.
    async fn hold(&self) -> impl Drop + use<> {
        self.members[0].follow(|_| Act::Hang);
        let stream = self.service.generate(Request::new(request(&[0], 1, 1))).await.unwrap().into_inner();
        // It is fed in a task of its own.
        tokio::task::yield_now().await;
        self.members[0].follow(|_| Act::Answer);
        Held { stream: Box::new(stream) }
    }

    async fn until_waiting(&self, expected: u32) {
        while self.status().await.waiting != expected {
            tokio::task::yield_now().await;
        }
    }
}

struct Held {
    stream: Box<dyn std::any::Any>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stream = Box::new(());
    }
}

fn refusal(result: Result<ScoreReply, Status>, limit: &str) -> Status {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains(limit), "{}", error.message());
    error
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_place_waits_and_is_served() {
    let stage = Stage::new("[limits]\nmax_sessions = 1").await;
    let alone = stage.score(scoring(3)).await.unwrap();
    let held = stage.hold().await;
    let waiting = stage.spawn_score(Request::new(scoring(3)));
    stage.until_waiting(1).await;
    let status = stage.status().await;
    assert_eq!((status.sessions, status.tokens_in_progress), (1, 2));
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), alone);
    stage.ensemble.common.admission.idle().await;
    let status = stage.status().await;
    assert_eq!((status.sessions, status.waiting, status.tokens_in_progress), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_with_a_delay_that_every_client_understands() {
    let stage = Stage::new("[limits]\nmax_sessions = 1\nmax_waiting = 2").await;
    let _held = stage.hold().await;
    let waiting = [1, 2].map(|_| stage.spawn_score(Request::new(scoring(3))));
    stage.until_waiting(2).await;
    let error = refusal(stage.score(scoring(3)).await, "limits.max_waiting");
    let details = error.get_details_retry_info().unwrap();
    assert_eq!(details.retry_delay, Some(Duration::from_secs(1)));
    assert_eq!(error.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    assert!(error.message().ends_with("; try again after 1 s"), "{}", error.message());
    waiting.iter().for_each(Scored::abort);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_even_tokenized() {
    let stage = Stage::new("[limits]\nmax_sessions = 1\nmax_waiting = 0").await;
    let _held = stage.hold().await;
    let wrong = ScoreRequest { input: text("no such letters"), ..ScoreRequest::default() };
    refusal(stage.score(wrong).await, "limits.max_waiting");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_the_limit() {
    let stage = Stage::new("[limits]\nmax_sessions = 1\nmax_wait_ms = 700").await;
    let _held = stage.hold().await;
    let start = Instant::now();
    refusal(stage.score(scoring(3)).await, "limits.max_wait_ms");
    assert_eq!(start.elapsed().as_millis(), 700);
    assert_eq!(stage.status().await.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_line_ends_the_waiting() {
    let stage = Stage::new("[limits]\nmax_sessions = 1").await;
    let _held = stage.hold().await;
    let mut request = Request::new(scoring(3));
    request.set_timeout(Duration::from_millis(320));
    let start = Instant::now();
    let error = stage.service.score(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(start.elapsed().as_millis(), 310);
    assert_eq!(stage.status().await.waiting, 0);
    let mut streamed = Request::new(super::request(&[0], 3, 1));
    streamed.set_timeout(Duration::from_millis(320));
    let error = stage.service.generate(streamed).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(stage.status().await.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_in_the_line_makes_room_at_once() {
    let stage = Stage::new("[limits]\nmax_sessions = 1\nmax_waiting = 1").await;
    let held = stage.hold().await;
    let gone = stage.spawn_score(Request::new(scoring(3)));
    stage.until_waiting(1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let waiting = stage.spawn_score(Request::new(scoring(3)));
    stage.until_waiting(1).await;
    drop(held);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_whoever_waits_and_lets_finish_what_runs() {
    let stage = Stage::new("[limits]\nmax_sessions = 1").await;
    stage.members[0].follow(|_| Act::AnswerAfter(Duration::from_secs(1)));
    let running = stage.spawn_score(Request::new(scoring(3)));
    while stage.status().await.sessions == 0 {
        tokio::task::yield_now().await;
    }
    let waiting = stage.spawn_score(Request::new(scoring(3)));
    stage.until_waiting(1).await;
    stage.ensemble.common.draining.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("shutting down"), "{}", error.message());
    stage.ensemble.common.admission.idle().await;
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn tokens_in_progress_are_bounded_and_a_request_of_more_runs_alone() {
    let stage = Stage::new("[limits]\nmax_tokens_in_progress = 10").await;
    for member in &stage.members {
        member.follow(|_| Act::AnswerAfter(Duration::from_millis(100)));
    }
    let all = [6, 4, 1, 30].map(|tokens| stage.spawn_score(Request::new(scoring(tokens))));
    stage.until_waiting(2).await;
    let status = stage.status().await;
    assert_eq!((status.sessions, status.tokens_in_progress), (2, 10));
    let mut most = 0;
    while all.iter().any(|scored| !scored.is_finished()) {
        let status = stage.status().await;
        assert!(status.tokens_in_progress <= 10 || status.sessions == 1, "{status:?}");
        most = most.max(status.tokens_in_progress);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(most, 30);
    for (scored, tokens) in all.into_iter().zip([6, 4, 1, 30]) {
        assert_eq!(scored.await.unwrap().unwrap().tokens, tokens);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_caller_takes_no_more_than_its_share() {
    let stage = Stage::new("[limits]\nmax_sessions = 2\nmax_waiting = 40").await;
    for member in &stage.members {
        member.follow(|_| Act::AnswerAfter(Duration::from_millis(50)));
    }
    let flood: Vec<Scored> = (0..42).map(|_| stage.spawn_score(of_caller(scoring(3), "192.0.2.1"))).collect();
    stage.until_waiting(40).await;
    // The line is full, and another caller finds its half of it.
    let other: Vec<Scored> = (0..25).map(|_| stage.spawn_score(of_caller(scoring(3), "192.0.2.2"))).collect();
    while stage.status().await.sessions > 0 {
        let served = |all: &[Scored]| all.iter().filter(|scored| scored.is_finished()).count();
        let refused_or_served = (served(&flood), served(&other));
        tokio::time::sleep(Duration::from_millis(10)).await;
        // 20 of each are displaced or refused, 2 of the flood ran before; of the rest they are served in turns.
        let (flood, other) = refused_or_served;
        assert!(other == 0 || (flood as i64 - 22 - (other as i64 - 5)).abs() <= 4, "{refused_or_served:?}");
    }
    let mut answered = [0; 2];
    for (caller, all) in [flood, other].into_iter().enumerate() {
        for scored in all {
            match scored.await.unwrap() {
                Ok(_) => answered[caller] += 1,
                Err(error) => assert_eq!(error.code(), Code::ResourceExhausted, "{error}"),
            }
        }
    }
    assert_eq!(answered, [22, 20]);
}
