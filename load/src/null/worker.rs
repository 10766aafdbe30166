//! Members that answer at once, behind the Worker service. Knows nothing about ensembles.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use chorus_proto::{
    MAX_MESSAGE_BYTES, MAX_OPERATION_FRAME_BYTES,
    v1::{
        Answer, AnswerFrame, DescribeRequest, ModelCard, OperationFrame, Start, TokenizerChunk,
        TokenizerRequest, WorkerLimits, start,
        worker_server::{Worker, WorkerServer},
    },
};
use chorus_text::Vocabulary;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::{ServerThread, answers::answer, logits::NullLogits, server, tokenizer_chunks};

/// Tag and length of one answer in a frame, at most.
const ANSWER_FRAMING_BYTES: usize = 16;
/// Tokens of one feed, as of a worker by default.
const MAX_FEED_TOKENS: u32 = 4096;

/// Null workers, each at an address of its own, until they are dropped.
#[derive(Debug)]
pub struct NullWorkers {
    addresses: Vec<SocketAddr>,
    _thread: ServerThread,
}

struct NullWorker {
    member: usize,
    card: ModelCard,
    tokenizer: Bytes,
    logits: Arc<NullLogits>,
}

impl NullWorkers {
    /// Starts this many members that share a vocabulary, on loopback.
    ///
    /// # Errors
    /// The system gives no thread or no port.
    pub fn start(members: usize, vocabulary: &Vocabulary) -> io::Result<Self> {
        let logits = Arc::new(NullLogits::new(vocabulary.len()));
        let tokenizer = Bytes::from(vocabulary.to_json().to_owned());
        let routers = (0..members).map(|member| {
            let card = card(member, vocabulary);
            let worker =
                NullWorker { member, card, tokenizer: tokenizer.clone(), logits: Arc::clone(&logits) };
            let service = WorkerServer::new(worker)
                .max_decoding_message_size(MAX_OPERATION_FRAME_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            server().add_service(service)
        });
        let (thread, addresses) = ServerThread::start("null-workers", routers.collect())?;
        Ok(Self { addresses, _thread: thread })
    }

    /// Where they listen, in member order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

fn card(member: usize, vocabulary: &Vocabulary) -> ModelCard {
    let row_bytes = vocabulary.len() as usize * size_of::<f32>();
    let rows = (MAX_MESSAGE_BYTES / (row_bytes + 16)).clamp(1, MAX_FEED_TOKENS as usize);
    ModelCard {
        name: format!("null-{member}"),
        architecture: "null".to_owned(),
        vocabulary_size: vocabulary.len(),
        vocabulary_fingerprint: vocabulary.fingerprint().to_owned(),
        start: Some(Start { start: Some(start::Start::ZeroState(true)) }),
        // A generation goes on for as long as it may.
        end_token: None,
        parameters: 0,
        device: "null".to_owned(),
        limits: Some(WorkerLimits {
            max_sessions: u32::MAX,
            max_feed_tokens: MAX_FEED_TOKENS,
            session_ttl_seconds: 3600,
            max_answer_rows: u32::try_from(rows).unwrap_or(MAX_FEED_TOKENS),
        }),
        incarnation: "null".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_fingerprint: String::new(),
        open_sessions: 0,
    }
}

#[tonic::async_trait]
impl Worker for NullWorker {
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
        let (member, logits) = (self.member, Arc::clone(&self.logits));
        let frames = request.into_inner().flat_map(move |frame| match frame {
            Ok(frame) => stream::iter(answers_to(&logits, member, &frame)).boxed(),
            Err(status) => stream::iter([Err(status)]).boxed(),
        });
        Ok(Response::new(frames.boxed()))
    }
}

/// The answers to a frame, in as few frames as messages may be large.
fn answers_to(
    logits: &NullLogits,
    member: usize,
    frame: &OperationFrame,
) -> Vec<Result<AnswerFrame, Status>> {
    let answers = frame.operations.iter().filter_map(|operation| answer(logits, member, operation));
    packed(answers.collect()).map(Ok).collect()
}

fn packed(mut answers: VecDeque<Answer>) -> impl Iterator<Item = AnswerFrame> {
    std::iter::from_fn(move || {
        let (mut frame, mut bytes) = (AnswerFrame::default(), 0);
        while let Some(answer) = answers.front() {
            bytes += answer.encoded_len() + ANSWER_FRAMING_BYTES;
            if bytes > MAX_MESSAGE_BYTES && !frame.answers.is_empty() {
                break;
            }
            frame.answers.extend(answers.pop_front());
        }
        (!frame.answers.is_empty()).then_some(frame)
    })
}
