//! A worker that lies: it says that it hosts a member's model, and answers feeds with anything but the truth. What it says can be
//! told from the truth, or it would be a member of its own.

use std::sync::{Arc, Mutex};

use chorus_proto::v1::{
    self, Answer, AnswerFrame, DescribeRequest, ModelCard, OperationFrame, TokenizerChunk, TokenizerRequest,
    answer, operation, worker_server::Worker,
};
use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct Hostile {
    card: ModelCard,
    tokenizer: Vec<u8>,
    random: Arc<Mutex<StdRng>>,
}

impl Hostile {
    pub(crate) fn new(card: ModelCard, tokenizer: &str, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self { card, tokenizer: tokenizer.as_bytes().to_vec(), random }
    }
}

#[tonic::async_trait]
impl Worker for Hostile {
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;
    type AttachStream = BoxStream<'static, Result<AnswerFrame, Status>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<ModelCard>, Status> {
        Ok(Response::new(self.card.clone()))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        let chunk = TokenizerChunk { data: self.tokenizer.clone().into() };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }

    async fn attach(
        &self,
        request: Request<Streaming<OperationFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(lies(request.into_inner(), Arc::clone(&self.random)).boxed()))
    }
}

fn lies(
    frames: Streaming<OperationFrame>,
    random: Arc<Mutex<StdRng>>,
) -> impl Stream<Item = Result<AnswerFrame, Status>> + Send {
    frames.map(move |frame| {
        let mut random = random.lock().unwrap();
        let answers = frame?.operations.into_iter().filter_map(|operation| match operation.operation {
            Some(operation::Operation::Feed(feed)) => lie(&mut random, operation.session, feed.step),
            _ => None,
        });
        let answers = answers.collect();
        // A state of nothing, of a session of its own invention.
        let handover =
            v1::Handover { session: random.random_range(0..50), snapshot: Some(v1::Snapshot::default()) };
        let handovers = if random.random_bool(0.1) { vec![handover] } else { vec![] };
        if random.random_bool(0.05) {
            return Err(Status::internal("enough"));
        }
        Ok(AnswerFrame { answers, handovers, ..AnswerFrame::default() })
    })
}

fn lie(random: &mut StdRng, session: u64, step: u64) -> Option<Answer> {
    let norms = Some(v1::Norms { largest: vec![0.0], log_sum: vec![1.0] });
    let numbers = |count: usize, number: f32| [number.to_le_bytes()].repeat(count).concat();
    let answer = match random.random_range(0..8) {
        0 => return None,
        1 => answer::Answer::Logits(v1::Logits { values: numbers(3, 0.5).into(), norms }),
        2 => answer::Answer::Logits(v1::Logits { values: numbers(12, f32::NAN).into(), norms }),
        // Probabilities that do not sum to one.
        3 => answer::Answer::Logits(v1::Logits { values: numbers(12, 1.0).into(), norms }),
        4 => answer::Answer::Drawn(v1::Drawn { id: u32::MAX }),
        5 => answer::Answer::Targets(v1::Targets { log_probs: vec![1.0, f64::NAN] }),
        6 => answer::Answer::Top(v1::TopTokens {
            counts: vec![u32::MAX],
            ids: vec![1, 1],
            ..Default::default()
        }),
        _ => answer::Answer::Failure(v1::Failure {
            code: random.random_range(-3..30),
            message: "x".repeat(5000),
        }),
    };
    // Now and then about a step that nobody took.
    let step = if random.random_bool(0.1) { step + 7 } else { step };
    Some(Answer { session, step, answer: Some(answer), snapshot: None })
}
