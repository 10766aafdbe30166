//! What the world hears of a device that breaks while it is served: the health, the streams, whoever asks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use chorus_proto::v1::{self, ErrorCode, answer::Answer as Kind, worker_client::WorkerClient};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use super::*;
use crate::scripted_device::{Manner, Manners, ScriptedDevice, VOCABULARY};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    manners: Manners,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), WorkerError>>,
}

struct Attached {
    frames: mpsc::UnboundedSender<v1::OperationFrame>,
    answers: Streaming<v1::AnswerFrame>,
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should not take so long")
}

impl Served {
    async fn start(probe_interval: Option<Duration>, stuck_after: Duration) -> Self {
        Self::start_on(&Handle::current(), probe_interval, stuck_after).await
    }

    async fn start_on(runtime: &Handle, probe_interval: Option<Duration>, stuck_after: Duration) -> Self {
        let (device, manners) = ScriptedDevice::new();
        let config = WorkerConfig { stuck_after, ..WorkerConfig::new("scripted") };
        let engine = Engine::new(device, "scripted".to_owned(), 8, config.session_ttl, config.batch);
        let engine = engine.probed(ScriptedDevice::golden(), probe_interval, Instant::now());
        let limits = OperationLimits {
            vocabulary_size: VOCABULARY,
            state_bytes: 0,
            max_feed_tokens: 8,
            max_answer_rows: 8,
        };
        let described = Described { card: ModelCard::default(), tokenizer: Bytes::new(), limits };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone().cancelled_owned();
        let listener = listener.into_std().unwrap();
        let server = runtime.spawn(async move {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            serve_engine(engine, described, &config, incoming, stop, |engine, board| {
                on_a_thread(engine, board, 0)
            })
            .await
        });
        Self { address, manners, shutdown, server }
    }

    async fn channel(&self) -> Channel {
        soon(Channel::from_shared(format!("http://{}", self.address)).unwrap().connect()).await.unwrap()
    }

    async fn attach(&self) -> Attached {
        let (frames, receiver) = mpsc::unbounded_channel();
        let mut client = WorkerClient::new(self.channel().await);
        let answers = soon(client.attach(UnboundedReceiverStream::new(receiver))).await.unwrap();
        Attached { frames, answers: answers.into_inner() }
    }

    async fn watch_health(&self) -> Streaming<HealthCheckResponse> {
        let request = HealthCheckRequest { service: HEALTH_SERVICES[1].to_owned() };
        soon(HealthClient::new(self.channel().await).watch(request)).await.unwrap().into_inner()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon(self.server).await.unwrap().unwrap();
    }
}

impl Attached {
    fn send(&self, session: u64, operation: v1::operation::Operation) {
        let operations = vec![v1::Operation { session, operation: Some(operation) }];
        self.frames.send(v1::OperationFrame { operations }).unwrap();
    }

    fn open(&self, session: u64) {
        self.send(session, v1::operation::Operation::Open(v1::Open::default()));
    }

    fn feed(&self, session: u64, step: u64) {
        let ask = Some(v1::feed::Ask::Targets(v1::AskTargets {}));
        let feed = v1::Feed { step, tokens: vec![1], ask, ..v1::Feed::default() };
        self.send(session, v1::operation::Operation::Feed(feed));
    }

    async fn frame(&mut self) -> v1::AnswerFrame {
        soon(self.answers.message()).await.unwrap().expect("the stream has ended")
    }

    /// The code of the failure, if it is one, of the only answer in the next frame.
    async fn answer(&mut self) -> Option<ErrorCode> {
        let frame = self.frame().await;
        assert_eq!((frame.answers.len(), &frame.condition), (1, &None), "{frame:?}");
        match &frame.answers[0].answer {
            Some(Kind::Failure(failure)) => Some(failure.code()),
            _ => None,
        }
    }

    /// What the next frame says of the device, and nothing else.
    async fn condition(&mut self) -> v1::Condition {
        let frame = self.frame().await;
        assert_eq!(frame.answers, []);
        frame.condition.expect("something about the device")
    }
}

async fn next_status(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    match soon(watch.message()).await.unwrap().unwrap().status {
        1 => ServingStatus::Serving,
        2 => ServingStatus::NotServing,
        other => panic!("status {other}"),
    }
}

#[tokio::test]
async fn a_device_that_computes_wrong_is_out_for_everybody_until_it_computes_right() {
    let served = Served::start(Some(Duration::from_millis(5)), PATIENCE).await;
    let mut health = served.watch_health().await;
    assert_eq!(next_status(&mut health).await, ServingStatus::Serving);
    let mut stream = served.attach().await;
    stream.open(1);
    stream.feed(1, 1);
    assert_eq!(stream.answer().await, None);

    served.manners.set(Manner::Off { position: 2, token: 3, by: 1.0 });
    assert_eq!(next_status(&mut health).await, ServingStatus::NotServing);
    let condition = stream.condition().await;
    assert!(!condition.sound, "{condition:?}");
    let reason = "at position 2 of the golden sequence the logit of token 3 is ";
    assert!(condition.reason.starts_with(reason), "{condition:?}");
    let mut late = served.attach().await;
    assert_eq!(late.condition().await, condition, "the first frame says it");
    for stream in [&mut stream, &mut late] {
        stream.feed(1, 2);
        assert_eq!(stream.answer().await, Some(ErrorCode::Unavailable));
        stream.open(2);
        assert_eq!(stream.answer().await, Some(ErrorCode::Unavailable));
    }

    served.manners.set(Manner::Right);
    assert_eq!(next_status(&mut health).await, ServingStatus::Serving);
    for stream in [&mut stream, &mut late] {
        assert_eq!(stream.condition().await, v1::Condition { sound: true, reason: String::new() });
    }
    stream.feed(1, 2);
    assert_eq!(stream.answer().await, Some(ErrorCode::UnknownSession), "its state could not be trusted");
    stream.open(1);
    stream.feed(1, 1);
    assert_eq!(stream.answer().await, None);
    served.stop().await;
}

#[tokio::test]
async fn a_device_that_is_stuck_is_out_until_its_forward_ends() {
    let served = Served::start(None, Duration::from_secs(1)).await;
    let mut health = served.watch_health().await;
    assert_eq!(next_status(&mut health).await, ServingStatus::Serving);
    let mut stream = served.attach().await;
    served.manners.set(Manner::Stuck);
    stream.open(1);
    stream.feed(1, 1);
    let condition = stream.condition().await;
    assert_eq!(condition.reason, "the device has been busy with one forward for 1 s");
    assert_eq!(next_status(&mut health).await, ServingStatus::NotServing);
    stream.feed(2, 1);
    assert_eq!(stream.answer().await, Some(ErrorCode::Unavailable), "although the model can't answer");

    served.manners.set(Manner::Right);
    assert_eq!(stream.answer().await, None, "what it was busy with");
    assert!(stream.condition().await.sound);
    assert_eq!(next_status(&mut health).await, ServingStatus::Serving);
    stream.feed(1, 2);
    assert_eq!(stream.answer().await, Some(ErrorCode::UnknownSession));
    served.stop().await;
}

#[tokio::test]
async fn a_worker_whose_device_is_stuck_can_stop() {
    let served = Served::start(None, Duration::from_millis(50)).await;
    let mut stream = served.attach().await;
    let manners = served.manners.clone();
    manners.set(Manner::Stuck);
    stream.open(1);
    stream.feed(1, 1);
    assert!(!stream.condition().await.sound);
    drop(stream);
    served.stop().await;
    manners.set(Manner::Right);
}

/// What is computed early keeps no answer, although where forwards are quick the thread of the connections does it.
#[tokio::test]
async fn an_answer_is_out_before_anything_is_computed_early() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (handle, over) = (runtime.handle().clone(), CancellationToken::new());
    let until = over.clone().cancelled_owned();
    let thread = std::thread::spawn(move || runtime.block_on(until));
    let served = Served::start_on(&handle, None, PATIENCE).await;
    served.manners.set_early(2);
    let mut attached = served.attach().await;
    attached.open(1);
    for step in 1..=20 {
        served.manners.set(Manner::StuckEarly);
        attached.feed(1, step);
        assert_eq!(attached.answer().await, None, "{step}");
        served.manners.set(Manner::Right);
        served.manners.wait_for_early();
    }
    drop(attached);
    served.stop().await;
    over.cancel();
    thread.join().unwrap();
}
