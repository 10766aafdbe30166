//! A worker that lies: it says that it hosts a member's model, and answers feeds with anything but the truth. What it says can be
//! told from the truth; what could not would be a member of its own.
//!
//! Knows nothing about ensembles.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use chorus_proto::v1::{
    self, Answer, AnswerFrame, DescribeRequest, ModelCard, OperationFrame, TokenizerChunk, TokenizerRequest,
    answer, operation,
    worker_server::{Worker, WorkerServer},
};
use futures::{StreamExt as _, stream::BoxStream};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic::{Request, Response, Status, Streaming};

use super::{ServerThread, server, tokenizer_chunks};

/// The service of a worker that lies.
#[derive(Debug)]
pub struct Liar {
    card: ModelCard,
    tokenizer: Bytes,
    random: Arc<Mutex<ChaCha8Rng>>,
}

/// One at an address of its own, until it is dropped.
#[derive(Debug)]
pub struct LyingWorker {
    address: SocketAddr,
    _thread: ServerThread,
}

impl Liar {
    /// With the card and the tokenizer (`tokenizer.json`) of a worker that does not lie. The same seed tells the same lies.
    #[must_use]
    pub fn new(card: ModelCard, tokenizer: impl Into<Bytes>, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed)));
        Self { card, tokenizer: tokenizer.into(), random }
    }
}

impl LyingWorker {
    /// Starts it at an address, in a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread or not this port.
    pub fn start(address: SocketAddr, liar: Liar) -> io::Result<Self> {
        let router = server().add_service(WorkerServer::new(liar));
        let (thread, addresses) = ServerThread::start_at("liar", vec![(address, router)])?;
        let address = addresses.first().copied().unwrap_or(address);
        Ok(Self { address, _thread: thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[tonic::async_trait]
impl Worker for Liar {
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;
    type AttachStream = BoxStream<'static, Result<AnswerFrame, Status>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<ModelCard>, Status> {
        Ok(Response::new(self.card.clone()))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Ok(Response::new(tokenizer_chunks(self.tokenizer.clone())))
    }

    async fn attach(
        &self,
        request: Request<Streaming<OperationFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let random = Arc::clone(&self.random);
        let frames = request.into_inner().map(move |frame| {
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            lies(&mut random, frame?)
        });
        Ok(Response::new(frames.boxed()))
    }
}

/// What comes back for a frame.
fn lies(random: &mut ChaCha8Rng, frame: OperationFrame) -> Result<AnswerFrame, Status> {
    let feeds = frame.operations.into_iter().filter_map(|operation| match operation.operation {
        Some(operation::Operation::Feed(feed)) => Some((operation.session, feed.step)),
        _ => None,
    });
    let answers = feeds.filter_map(|(session, step)| lie(random, session, step)).collect();
    if random.random_bool(0.05) {
        return Err(Status::internal("enough"));
    }
    // A state of nothing, of a session of its own invention.
    let invented =
        v1::Handover { session: random.random_range(0..50), snapshot: Some(v1::Snapshot::default()) };
    let handovers = if random.random_bool(0.1) { vec![invented] } else { vec![] };
    // It is well, or it is not, as it pleases.
    let says = v1::Condition { sound: random.random_bool(0.5), reason: "tired".to_owned() };
    let condition = random.random_bool(0.1).then_some(says);
    Ok(AnswerFrame { answers, handovers, condition })
}

fn lie(random: &mut ChaCha8Rng, session: u64, step: u64) -> Option<Answer> {
    let norms = Some(v1::Norms { largest: vec![0.0], log_sum: vec![1.0] });
    let numbers = |count: usize, number: f32| Bytes::from([number.to_le_bytes()].repeat(count).concat());
    let answer = match random.random_range(0..8) {
        0 => return None,
        1 => answer::Answer::Logits(v1::Logits { values: numbers(3, 0.5), norms }),
        2 => answer::Answer::Logits(v1::Logits { values: numbers(12, f32::NAN), norms }),
        // Probabilities that do not sum to one.
        3 => answer::Answer::Logits(v1::Logits { values: numbers(12, 1.0), norms }),
        4 => answer::Answer::Drawn(v1::Drawn { id: u32::MAX }),
        5 => answer::Answer::Targets(v1::Targets { log_probs: vec![1.0, f64::NAN] }),
        6 => {
            let (counts, ids) = (vec![u32::MAX], vec![1, 1]);
            answer::Answer::Top(v1::TopTokens { counts, ids, ..v1::TopTokens::default() })
        }
        _ => {
            let (code, message) = (random.random_range(-3..30), "x".repeat(5000));
            answer::Answer::Failure(v1::Failure { code, message })
        }
    };
    // Now and then about a step that nobody took.
    let step = if random.random_bool(0.1) { step.saturating_add(7) } else { step };
    Some(Answer { session, step, answer: Some(answer), snapshot: None })
}
