//! [`Responses`]: the way of a stream's responses to the client that reads them.
//!
//! Knows nothing about what they say.

use std::time::Duration;

use chorus_proto::Failure;
use chorus_proto::v1::ErrorCode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::pb::ModelStreamInferResponse;

/// Responses that wait for a slow reader; one more place is kept for the last word.
pub(crate) const WAITING: usize = 32;
/// How long a client may leave its responses unread before its stream ends.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// What a stream has, in the end a failure.
pub(crate) type Response = Result<ModelStreamInferResponse, Status>;

/// Where responses go. Clones are of the same stream.
#[derive(Debug, Clone)]
pub(crate) struct Responses {
    sender: mpsc::Sender<Response>,
    unread: CancellationToken,
}

impl Responses {
    pub(crate) fn new(sender: mpsc::Sender<Response>) -> Self {
        Self { sender, unread: CancellationToken::new() }
    }

    /// Sends a response as soon as there is room. Where nobody reads it never returns: the stream ends, and with it whoever
    /// waits here.
    pub(crate) async fn send(&self, response: ModelStreamInferResponse) {
        // The time is looked at only where there is no room.
        let response = match self.sender.try_send(Ok(response)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(response) | mpsc::error::TrySendError::Closed(response)) => {
                response
            }
        };
        if self.sender.send_timeout(response, READER_PATIENCE).await.is_err() {
            self.unread.cancel();
            std::future::pending::<()>().await;
        }
    }

    /// The place of the last word, which reaches even a client that left no room for anything else.
    pub(crate) async fn last_word(&self) -> Option<mpsc::OwnedPermit<Response>> {
        self.sender.clone().reserve_owned().await.ok()
    }

    /// Resolves when the client is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Resolves when the client reads nothing for too long.
    pub(crate) async fn unread(&self) -> Status {
        self.unread.cancelled().await;
        let seconds = READER_PATIENCE.as_secs();
        let message = format!("the client read no message for {seconds} s");
        Failure::new(ErrorCode::DeadlineExceeded, message).into()
    }
}
