//! A scripted worker behind real gRPC on loopback, in a runtime of its own that can be killed like a process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus_net::{ServerTls, secured_connections};
use chorus_proto::v1::{
    self, AnswerFrame, DescribeRequest, ErrorCode, Failure, ModelCard, Operation, OperationFrame,
    TokenizerChunk, TokenizerRequest, answer, feed, operation, worker_server,
};
use chorus_text::Vocabulary;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::scripted_replica::{self, ScriptedModel, Style};
use crate::fusion::Norm;
use crate::plan::{Ask, Positions};
use crate::replica::Answer;

/// How a worker answers feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Faithful,
    /// Never answers.
    Silent,
    /// Logits with a NaN among them.
    NotFinite,
    /// A row with a number too few.
    Short,
    /// Logits that are all zero.
    Flat,
}

/// A worker that can be killed and started again in the same place.
pub(crate) struct ScriptedWorker {
    pub(crate) address: SocketAddr,
    pub(crate) model: ScriptedModel,
    vocabulary: Vocabulary,
    incarnation: u32,
    runtime: Option<Runtime>,
    tls: Option<ServerTls>,
    seen: Seen,
    condition: Arc<watch::Sender<v1::Condition>>,
}

/// What has come from coordinators.
#[derive(Clone)]
struct Seen {
    frames: Arc<Mutex<Vec<OperationFrame>>>,
    open: Arc<watch::Sender<usize>>,
}

struct Service {
    card: ModelCard,
    model: ScriptedModel,
    json: Vec<u8>,
    manner: Manner,
    seen: Seen,
    condition: Arc<watch::Sender<v1::Condition>>,
}

impl ScriptedWorker {
    pub(crate) fn start(vocabulary: &Vocabulary, seed: u64, manner: Manner) -> Self {
        Self::start_in_style(Style::Noise, vocabulary, seed, manner)
    }

    pub(crate) fn start_in_style(style: Style, vocabulary: &Vocabulary, seed: u64, manner: Manner) -> Self {
        Self::start_secured(None, style, vocabulary, seed, manner)
    }

    /// Over TLS, where there is some.
    pub(crate) fn start_secured(
        tls: Option<ServerTls>,
        style: Style,
        vocabulary: &Vocabulary,
        seed: u64,
        manner: Manner,
    ) -> Self {
        let mut worker = Self {
            tls,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            model: ScriptedModel { seed, vocabulary_size: vocabulary.len() as usize, style },
            vocabulary: vocabulary.clone(),
            incarnation: 0,
            runtime: None,
            seen: Seen { frames: Arc::default(), open: Arc::new(watch::Sender::new(0)) },
            condition: Arc::new(watch::Sender::new(v1::Condition { sound: true, ..Default::default() })),
        };
        worker.start_again(manner);
        worker
    }

    pub(crate) fn start_again(&mut self, manner: Manner) {
        self.incarnation += 1;
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let card = ModelCard {
            incarnation: self.incarnation.to_string(),
            ..scripted_replica::card("worker", &self.vocabulary)
        };
        let service = Service {
            card,
            model: self.model,
            json: self.vocabulary.to_json().as_bytes().to_vec(),
            manner,
            seen: self.seen.clone(),
            condition: Arc::clone(&self.condition),
        };
        let tls = self.tls.clone();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let listener = secured_connections(listener, tls);
            let limit = chorus_proto::MAX_MESSAGE_BYTES;
            let service = worker_server::WorkerServer::new(service).max_encoding_message_size(limit);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(listener).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Its connections break without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let end = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            end.join().unwrap();
        }
        self.seen.open.send_replace(0);
    }

    /// Says on every stream that its device is not sound, for this reason; without one that it is. Either way its sessions
    /// are gone.
    pub(crate) fn say(&self, reason: Option<&str>) {
        let (sound, reason) = (reason.is_none(), reason.unwrap_or_default().to_owned());
        self.condition.send_replace(v1::Condition { sound, reason });
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn frames(&self) -> Vec<OperationFrame> {
        self.seen.frames.lock().unwrap().clone()
    }

    pub(crate) async fn until_open(&self, sessions: usize) {
        let mut open = self.seen.open.subscribe();
        open.wait_for(|open| *open == sessions).await.unwrap();
    }
}

impl Drop for ScriptedWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl worker_server::Worker for Service {
    type TokenizerStream = ReceiverStream<Result<TokenizerChunk, Status>>;
    type AttachStream = ReceiverStream<Result<AnswerFrame, Status>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<ModelCard>, Status> {
        Ok(Response::new(self.card.clone()))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        let (chunks, stream) = mpsc::channel(1);
        let json = self.json.clone();
        tokio::spawn(async move {
            for piece in json.chunks(100_000) {
                let data = bytes::Bytes::copy_from_slice(piece);
                if chunks.send(Ok(TokenizerChunk { data })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<OperationFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut operations = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        let (model, manner, seen) = (self.model, self.manner, self.seen.clone());
        let mut condition = self.condition.subscribe();
        if !condition.borrow().sound {
            condition.mark_changed();
        }
        tokio::spawn(async move {
            let mut sessions = HashMap::new();
            loop {
                let frame = tokio::select! {
                    biased;
                    Ok(()) = condition.changed() => {
                        sessions.clear();
                        let condition = Some(condition.borrow_and_update().clone());
                        let _ = answers.send(Ok(AnswerFrame { condition, ..AnswerFrame::default() })).await;
                        continue;
                    }
                    Ok(Some(frame)) = operations.message() => frame,
                    else => return,
                };
                seen.frames.lock().unwrap().push(frame.clone());
                let frame = frame.operations.into_iter();
                let frame: Vec<_> =
                    frame.filter_map(|operation| run(model, manner, &mut sessions, operation)).collect();
                seen.open.send_replace(sessions.len());
                if !frame.is_empty()
                    && answers
                        .send(Ok(AnswerFrame { answers: frame, ..AnswerFrame::default() }))
                        .await
                        .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn run(
    model: ScriptedModel,
    manner: Manner,
    sessions: &mut HashMap<u64, Vec<u32>>,
    operation: Operation,
) -> Option<v1::Answer> {
    let session = operation.session;
    let feed = match operation.operation.unwrap() {
        operation::Operation::Open(v1::Open { from }) => {
            let tokens = match from {
                // It makes no snapshots.
                None | Some(v1::open::From::Snapshot(_)) => Vec::new(),
                Some(v1::open::From::ForkOf(other)) => sessions.get(&other)?.clone(),
            };
            sessions.insert(session, tokens);
            return None;
        }
        operation::Operation::Close(close) => {
            assert!(close.discard, "nobody waits for what is queued");
            sessions.remove(&session);
            return None;
        }
        operation::Operation::Feed(feed) => feed,
    };
    let step = feed.step;
    let answer = match sessions.get_mut(&session) {
        None => answer::Answer::Failure(Failure {
            code: ErrorCode::UnknownSession.into(),
            message: "no such session".to_owned(),
        }),
        Some(tokens) => answer_in(manner, model, tokens, &feed)?,
    };
    Some(v1::Answer { session, step, answer: Some(answer), snapshot: None })
}

fn answer_in(
    manner: Manner,
    model: ScriptedModel,
    tokens: &mut Vec<u32>,
    feed: &v1::Feed,
) -> Option<answer::Answer> {
    tokens.extend(&feed.tokens);
    let size = model.vocabulary_size;
    let zeros = |count: usize, rows: usize| {
        let norms = v1::Norms { largest: vec![0.0; rows], log_sum: vec![(size as f64).ln(); rows] };
        Some(answer::Answer::Logits(chorus_proto::logits_from_rows(&vec![0.0; count], norms)))
    };
    match manner {
        Manner::Silent => None,
        Manner::Short => zeros(size - 1, 1),
        Manner::Flat => zeros(size * feed.tokens.len(), feed.tokens.len()),
        Manner::NotFinite => {
            let norms = v1::Norms { largest: vec![0.0], log_sum: vec![1.0] };
            Some(answer::Answer::Logits(chorus_proto::logits_from_rows(&vec![f32::NAN; size], norms)))
        }
        Manner::Faithful => Some(faithful(&model.answer(&ask(feed), tokens, feed.tokens.len()))),
    }
}

fn ask(feed: &v1::Feed) -> Ask {
    let positions = |rows| match v1::Rows::try_from(rows) {
        Ok(v1::Rows::Next) => Positions::Next,
        Ok(v1::Rows::Each) => Positions::Each,
        _ => panic!("no coordinator asks that"),
    };
    match feed.ask.clone().unwrap() {
        feed::Ask::Nothing(_) => Ask::Nothing,
        feed::Ask::Targets(_) => Ask::Targets,
        feed::Ask::Logits(ask) => Ask::Logits { positions: positions(ask.rows), format: ask.format() },
        feed::Ask::Top(v1::AskTop { rows, k, log_threshold }) => {
            Ask::Top { positions: positions(rows), k, log_threshold }
        }
        feed::Ask::Ids(ids) => Ask::Ids(ids.ids.into()),
        feed::Ask::Draw(draw) => Ask::Draw { uniform: draw.uniform },
    }
}

fn faithful(answer: &Answer) -> answer::Answer {
    let bytes = |values: &[f32]| chorus_proto::logits_from_rows(values, v1::Norms::default()).values;
    let norms = |norms: &[Norm]| {
        let mut all = v1::Norms::default();
        norms.iter().for_each(|norm| all.push(norm.largest, norm.log_sum));
        Some(all)
    };
    match answer {
        Answer::Advanced => answer::Answer::Advanced(v1::Advanced {}),
        Answer::Targets(log_probs) => answer::Answer::Targets(v1::Targets { log_probs: log_probs.clone() }),
        Answer::Rows(rows) => {
            let rows: Vec<_> = (0..rows.len()).map(|index| rows.row(index).unwrap()).collect();
            let values: Vec<f32> = rows.iter().flat_map(|row| row.logits().iter()).collect();
            let of_rows: Vec<Norm> = rows.iter().map(|row| row.norm()).collect();
            answer::Answer::Logits(v1::Logits { values: bytes(&values), norms: norms(&of_rows) })
        }
        Answer::Top(tops) => {
            let rows: Vec<_> = (0..tops.len()).map(|index| tops.row(index).unwrap()).collect();
            let logits: Vec<f32> = rows.iter().flat_map(|row| row.logits.to_vec()).collect();
            let targets: Vec<f32> = rows.iter().filter_map(|row| row.target).collect();
            answer::Answer::Top(v1::TopTokens {
                counts: rows.iter().map(|row| row.ids.len() as u32).collect(),
                ids: rows.iter().flat_map(|row| row.ids.to_vec()).collect(),
                logits: bytes(&logits),
                norms: norms(&rows.iter().map(|row| row.norm).collect::<Vec<_>>()),
                target_logits: bytes(&targets),
            })
        }
        Answer::Ids { logits, norm } => {
            answer::Answer::Ids(v1::IdLogits { logits: bytes(logits), norms: norms(&[*norm]) })
        }
        Answer::Drawn(id) => answer::Answer::Drawn(v1::Drawn { id: *id }),
    }
}
