//! A worker on a port of its own, and the coordinator's side of the protocol by hand.

use std::{collections::VecDeque, future::Future, net::SocketAddr, path::Path, time::Duration};

use chorus_model::LanguageModel;
use chorus_proto::{
    MAX_MESSAGE_BYTES,
    v1::{self, Answer, AnswerFrame, ErrorCode, OperationFrame, answer, worker_client::WorkerClient},
};
use chorus_worker::{Precision, WorkerConfig, WorkerError};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use crate::models;

/// Longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), WorkerError>>,
    directory: TempDir,
}

/// One Attach stream.
pub(crate) struct Attached {
    frames: mpsc::UnboundedSender<OperationFrame>,
    answers: Streaming<AnswerFrame>,
    ready: VecDeque<Answer>,
    /// Sessions that the worker has handed over.
    pub(crate) handovers: Vec<v1::Handover>,
}

/// Fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should not take so long")
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a worker on a small model, with a config that `set` has changed.
    pub(crate) async fn start_with(set: impl FnOnce(&mut WorkerConfig)) -> Self {
        let directory = TempDir::new().unwrap();
        models::write(directory.path(), models::config(models::VOCABULARY));
        Self::start_on(directory, set).await
    }

    pub(crate) async fn start_on(directory: TempDir, set: impl FnOnce(&mut WorkerConfig)) -> Self {
        let mut config = WorkerConfig { device: models::device(), ..WorkerConfig::new(directory.path()) };
        // A workspace for that many is made and zeroed.
        config.batch.logits = config.batch.logits.min(1 << 22);
        set(&mut config);
        if config.precision == Precision::Int8 || config.quantize.is_some() {
            // What only the CPU has runs there.
            config.device = "cpu".to_owned();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(chorus_worker::run(config, listener, shutdown.clone().cancelled_owned()));
        Self { address, shutdown, served, directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The worker's model in this process.
    pub(crate) fn model(&self) -> LanguageModel {
        models::load(self.directory())
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        soon(endpoint.connect()).await.unwrap()
    }

    pub(crate) async fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.channel().await)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A stream on a connection of its own.
    pub(crate) async fn attach(&self) -> Attached {
        Attached::on(&mut self.client().await).await
    }

    /// Asks it to stop.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), WorkerError> {
        self.shut_down();
        soon(self.served).await.unwrap()
    }
}

impl Attached {
    pub(crate) async fn on(client: &mut WorkerClient<Channel>) -> Self {
        let (frames, receiver) = mpsc::unbounded_channel();
        let answers = soon(client.attach(UnboundedReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { frames, answers, ready: VecDeque::new(), handovers: Vec::new() }
    }

    /// Sends operations as one frame.
    pub(crate) fn send(&self, operations: impl IntoIterator<Item = v1::Operation>) {
        let operations = operations.into_iter().collect();
        self.frames.send(OperationFrame { operations }).unwrap();
    }

    /// The next answer, or how the stream ended.
    pub(crate) async fn try_answer(&mut self) -> Result<Option<Answer>, Status> {
        while self.ready.is_empty() {
            match soon(self.answers.message()).await? {
                Some(frame) => {
                    self.ready.extend(frame.answers);
                    self.handovers.extend(frame.handovers);
                }
                None => return Ok(None),
            }
        }
        Ok(self.ready.pop_front())
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.unwrap().expect("the stream has ended")
    }

    /// Sends one operation and takes the next answer.
    pub(crate) async fn ask(&mut self, operation: v1::Operation) -> Answer {
        self.send([operation]);
        self.answer().await
    }

    /// Ends the requests; the answers stay.
    pub(crate) fn finish(self) -> Self {
        let (frames, _) = mpsc::unbounded_channel();
        Self { frames, ..self }
    }
}

pub(crate) fn open(session: u64) -> v1::Operation {
    v1::Operation { session, operation: Some(v1::operation::Operation::Open(v1::Open::default())) }
}

pub(crate) fn close(session: u64) -> v1::Operation {
    let close = v1::Close { discard: false };
    v1::Operation { session, operation: Some(v1::operation::Operation::Close(close)) }
}

pub(crate) fn feed(session: u64, step: u64, tokens: &[u32], ask: v1::feed::Ask) -> v1::Operation {
    let feed = v1::Feed { step, tokens: tokens.to_vec(), ask: Some(ask), ..v1::Feed::default() };
    v1::Operation { session, operation: Some(v1::operation::Operation::Feed(feed)) }
}

pub(crate) fn nothing() -> v1::feed::Ask {
    v1::feed::Ask::Nothing(v1::AskNothing {})
}

pub(crate) fn next() -> v1::feed::Ask {
    v1::feed::Ask::Logits(v1::AskLogits { rows: v1::Rows::Next.into(), format: v1::RowFormat::F32.into() })
}

pub(crate) fn each() -> v1::feed::Ask {
    v1::feed::Ask::Logits(v1::AskLogits { rows: v1::Rows::Each.into(), format: v1::RowFormat::F32.into() })
}

pub(crate) fn next_in(format: v1::RowFormat) -> v1::feed::Ask {
    v1::feed::Ask::Logits(v1::AskLogits { rows: v1::Rows::Next.into(), format: format.into() })
}

pub(crate) fn top(rows: v1::Rows, k: u32, log_threshold: Option<f64>) -> v1::feed::Ask {
    v1::feed::Ask::Top(v1::AskTop { rows: rows.into(), k, log_threshold })
}

pub(crate) fn ids(ids: &[u32]) -> v1::feed::Ask {
    v1::feed::Ask::Ids(v1::AskIds { ids: ids.to_vec() })
}

pub(crate) fn draw(uniform: f64) -> v1::feed::Ask {
    v1::feed::Ask::Draw(v1::AskDraw { uniform })
}

pub(crate) fn targets() -> v1::feed::Ask {
    v1::feed::Ask::Targets(v1::AskTargets {})
}

/// The values of an answer of logits.
pub(crate) fn values(answer: &Answer, rows: usize) -> Vec<f32> {
    match &answer.answer {
        Some(answer::Answer::Logits(logits)) => {
            chorus_proto::logits_to_values(logits, v1::RowFormat::F32, rows, models::VOCABULARY).unwrap()
        }
        other => panic!("logits were asked for, the answer is {other:?}"),
    }
}

/// Numbers are the same to the bit, on the CPU; on a device, which adds in another order for another batch, they are near.
#[track_caller]
pub(crate) fn assert_same(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let is_same = if models::ON_DEVICE {
            (found - expected).abs() <= 1e-5
        } else {
            found.to_bits() == expected.to_bits()
        };
        assert!(is_same, "number {index} is {found}, expected is {expected}");
    }
}

/// The same of a row's norm.
#[track_caller]
pub(crate) fn assert_norm_of(found: (f32, f64), row: &[f32]) {
    let expected = chorus_simd::norm(row);
    let allowed = if models::ON_DEVICE { 1e-6 } else { 0.0 };
    assert!(
        found.0 == expected.largest && (found.1 - expected.log_sum).abs() <= allowed,
        "{found:?} {expected:?}"
    );
}

pub(crate) fn norms(answer: &Answer) -> Vec<(f32, f64)> {
    match &answer.answer {
        Some(answer::Answer::Logits(logits)) => logits.norms.as_ref().unwrap().iter().collect(),
        other => panic!("logits were asked for, the answer is {other:?}"),
    }
}

pub(crate) fn log_probs(answer: &Answer) -> Vec<f64> {
    match &answer.answer {
        Some(answer::Answer::Targets(targets)) => targets.log_probs.clone(),
        other => panic!("targets were asked for, the answer is {other:?}"),
    }
}

pub(crate) fn failure(answer: &Answer) -> (ErrorCode, &str) {
    match &answer.answer {
        Some(answer::Answer::Failure(failure)) => (failure.code(), &failure.message),
        other => panic!("a failure was expected, the answer is {other:?}"),
    }
}
