//! The way of an answer's messages to the client that reads them, and when the work for them ends.
//!
//! Knows nothing about what the messages say.

use std::time::Duration;

use chorus_proto::v1::ErrorCode;
use tokio::sync::mpsc;
use tonic::Status;

use super::call::Call;
use crate::admission::shutting_down;
use crate::ensemble::Ensemble;
use crate::failure::status;

/// How long a client may leave its messages unread before the work for it ends.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Where messages go.
pub(super) type Replies<T> = mpsc::Sender<Result<T, Status>>;

/// Works until the end, and says the last word if there is one.
pub(super) async fn until_the_end<T>(
    ensemble: &Ensemble,
    replies: &Replies<T>,
    call: Call,
    work: impl Future<Output = Result<Option<T>, Status>>,
) {
    // Kept for the last word, which must reach even a client that left no room for anything else.
    let Ok(last_word) = replies.clone().reserve_owned().await else {
        return;
    };
    let result = tokio::select! {
        // What is finished is finished, whoever else calls.
        biased;
        result = work => result,
        // A client that hangs up ends the work wherever it stands.
        () = replies.closed() => {
            tracing::debug!("the client hung up");
            return;
        }
        status = call.passed() => Err(status),
        () = ensemble.common.stop.cancelled() => Err(shutting_down()),
    };
    if let Some(last) = result.transpose() {
        last_word.send(last);
    }
}

/// Sends a message as soon as there is room.
///
/// # Errors
/// Nobody reads.
pub(super) async fn send<T>(replies: &Replies<T>, message: T) -> Result<(), Status> {
    // The time is looked at only where there is no room.
    let sent = match replies.try_send(Ok(message)) {
        Ok(()) => return Ok(()),
        Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
            replies.send_timeout(message, READER_PATIENCE).await
        }
    };
    sent.map_err(|_| {
        let seconds = READER_PATIENCE.as_secs();
        status(ErrorCode::DeadlineExceeded, format!("the client read no message for {seconds} s"))
    })
}
