//! The Worker service: what gRPC asks becomes commands for the model's thread. Knows nothing about models.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use bytes::Bytes;
use chorus_proto::status;
use chorus_proto::v1::{
    AnswerFrame, DescribeRequest, ErrorCode, ModelCard, OperationFrame, TokenizerChunk, TokenizerRequest,
    worker_server::Worker,
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use crate::{
    condition::Board,
    credit::StreamCredit,
    model_thread::Commands,
    operation::OperationLimits,
    stream::{OperationReader, Stopping, answer_frames},
    telemetry::StreamMetrics,
};

/// Size of a piece of the tokenizer.
const TOKENIZER_CHUNK_BYTES: usize = 64 * 1024;

/// Streams at a time, each of which may have some 50 MiB under way. A coordinator has one.
const MAX_STREAMS: usize = 64;

/// One hosted model as a gRPC service.
#[derive(Debug)]
pub(crate) struct WorkerService {
    pub(crate) card: ModelCard,
    /// How many there are now.
    pub(crate) open_sessions: Arc<AtomicU32>,
    /// `tokenizer.json`.
    pub(crate) tokenizer: Bytes,
    pub(crate) limits: OperationLimits,
    pub(crate) commands: Commands,
    pub(crate) stopping: Stopping,
    /// What every stream is told of the device.
    pub(crate) board: Board,
    /// The streams' readers.
    pub(crate) readers: TaskTracker,
    /// Number of the next stream.
    pub(crate) next_stream: AtomicU64,
    /// What is counted of all streams.
    pub(crate) metrics: StreamMetrics,
}

#[tonic::async_trait]
impl Worker for WorkerService {
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;
    type AttachStream = BoxStream<'static, Result<AnswerFrame, Status>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<ModelCard>, Status> {
        let open_sessions = self.open_sessions.load(Ordering::Relaxed);
        Ok(Response::new(ModelCard { open_sessions, ..self.card.clone() }))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Ok(Response::new(stream::iter(pieces(&self.tokenizer).into_iter().map(Ok)).boxed()))
    }

    async fn attach(
        &self,
        request: Request<Streaming<OperationFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if self.readers.len() >= MAX_STREAMS {
            let message = format!("{MAX_STREAMS} streams are attached, this worker's limit; try again later");
            return Err(status(ErrorCode::ResourceExhausted, message));
        }
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("attach", stream, peer = ?request.remote_addr());
        let (replies, receiver) = mpsc::unbounded_channel();
        let reader = OperationReader {
            stream,
            limits: self.limits,
            commands: self.commands.clone(),
            replies,
            credit: StreamCredit::new(),
            stopping: self.stopping.clone(),
            board: self.board.clone(),
            metrics: self.metrics.clone(),
        };
        self.readers.spawn(reader.run(request.into_inner()).instrument(span));
        Ok(Response::new(answer_frames(receiver, self.board.news(), self.metrics.clone()).boxed()))
    }
}

fn pieces(bytes: &Bytes) -> Vec<TokenizerChunk> {
    let starts = (0..bytes.len()).step_by(TOKENIZER_CHUNK_BYTES);
    let piece = |start: usize| bytes.slice(start..bytes.len().min(start + TOKENIZER_CHUNK_BYTES));
    starts.map(|start| TokenizerChunk { data: piece(start) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_tokenizer_are_the_tokenizer() {
        for length in [0, 1, TOKENIZER_CHUNK_BYTES, TOKENIZER_CHUNK_BYTES + 1, 3 * TOKENIZER_CHUNK_BYTES] {
            let bytes: Bytes = (0..length).map(|index| (index % 251) as u8).collect();
            let pieces = pieces(&bytes);
            assert_eq!(pieces.len(), length.div_ceil(TOKENIZER_CHUNK_BYTES));
            assert_eq!(pieces.iter().flat_map(|piece| piece.data.clone()).collect::<Bytes>(), bytes);
        }
    }
}
