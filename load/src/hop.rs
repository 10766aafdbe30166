//! One session of one worker, fed a token at a time: what a step lasts over one hop, without a coordinator.
//!
//! Knows nothing about what the worker hosts.

use std::time::Instant;

use chorus_net::Dialer;
use chorus_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        Answer, AskLogits, Close, Feed, Open, Operation, OperationFrame, RowFormat, Rows, answer, feed,
        operation, worker_client::WorkerClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::measure::Latencies;

/// The only session of the stream.
const SESSION: u64 = 1;

/// Why a worker could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum HopError {
    /// Nobody listens there.
    #[error("the worker can't be reached")]
    Connect(#[from] tonic::transport::Error),
    /// A call of the protocol failed.
    #[error("the worker refused")]
    Refused(#[from] Box<Status>),
    /// Something else than a row of logits came.
    #[error("the worker answered no row of logits: {0}")]
    Answer(String),
}

/// A stream to a worker, one operation at a time.
struct Hop {
    operations: mpsc::Sender<OperationFrame>,
    answers: Streaming<chorus_proto::v1::AnswerFrame>,
}

/// Feeds the tokens one after the other and asks for the row that follows each, as a coordinator with a single caller
/// does. Gives what every step lasted, there and back; the first `warm_up` steps are not among them.
///
/// # Errors
/// The worker can't be reached, refuses, or answers something else.
pub async fn steps_of_worker(
    worker: &Dialer,
    tokens: impl IntoIterator<Item = u32>,
    warm_up: usize,
) -> Result<Latencies, HopError> {
    let mut client = WorkerClient::new(worker.connect().await?).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (operations, frames) = mpsc::channel(1);
    let answers = client.attach(ReceiverStream::new(frames)).await.map_err(Box::new)?.into_inner();
    let mut hop = Hop { operations, answers };
    let mut latencies = Latencies::new();
    hop.send(operation::Operation::Open(Open::default())).await?;
    for (index, token) in tokens.into_iter().enumerate() {
        let start = Instant::now();
        hop.step(index as u64 + 1, token).await?;
        if index >= warm_up {
            latencies.record(start.elapsed());
        }
    }
    hop.send(operation::Operation::Close(Close { discard: true })).await?;
    Ok(latencies)
}

impl Hop {
    async fn step(&mut self, step: u64, token: u32) -> Result<(), HopError> {
        let ask = feed::Ask::Logits(AskLogits { rows: Rows::Next.into(), format: RowFormat::F32.into() });
        self.send(operation::Operation::Feed(Feed {
            step,
            tokens: vec![token],
            ask: Some(ask),
            ..Feed::default()
        }))
        .await?;
        let frame = self.answers.message().await.map_err(Box::new)?;
        let answer = frame.and_then(|frame| frame.answers.into_iter().next());
        match answer {
            Some(Answer { answer: Some(answer::Answer::Logits(_)), .. }) => Ok(()),
            Some(Answer { answer: Some(answer::Answer::Failure(failure)), .. }) => {
                Err(HopError::Answer(failure.message))
            }
            _ => Err(HopError::Answer("the stream ended".to_owned())),
        }
    }

    async fn send(&self, operation: operation::Operation) -> Result<(), HopError> {
        let operation = Operation { session: SESSION, operation: Some(operation) };
        let frame = OperationFrame { operations: vec![operation] };
        self.operations.send(frame).await.map_err(|_| HopError::Answer("the stream ended".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;
    use crate::null::{NullWorkers, synthetic_vocabulary};

    fn at(address: std::net::SocketAddr) -> Dialer {
        Dialer::plain(Endpoint::from_shared(format!("http://{address}")).unwrap())
    }

    async fn steps(tokens: &[u32]) -> Result<Latencies, HopError> {
        let vocabulary = synthetic_vocabulary(30).unwrap();
        let workers = NullWorkers::start(1, &vocabulary).unwrap();
        let worker = at(workers.addresses()[0]);
        steps_of_worker(&worker, tokens.iter().copied(), 2).await
    }

    #[tokio::test]
    async fn every_step_after_the_warm_up_is_measured() {
        assert_eq!(steps(&[3, 4, 5, 6, 7]).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_worker_that_is_not_there_is_an_error() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let worker = at(free);
        assert!(matches!(steps_of_worker(&worker, [1], 0).await, Err(HopError::Connect(_))));
    }
}
