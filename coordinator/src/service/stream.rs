//! `Generate`: a message for each token, as soon as it is chosen.
//!
//! Knows nothing about how tokens are chosen.

use std::sync::Arc;
use std::time::Duration;

use chorus_proto::status;
use chorus_proto::v1::{ErrorCode, GenerateReply, GeneratedToken, Participation};
use chorus_text::Vocabulary;
use tokio::sync::mpsc;
use tonic::Status;

use super::deadline::Deadline;
use super::generate::{Ending, Listener, generate};
use crate::admission::{Place, shutting_down};
use crate::ensemble::Ensemble;
use crate::request::Generation;

/// How long a client may leave its messages unread before the work for it ends.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Where messages go.
pub(super) type Replies = mpsc::Sender<Result<GenerateReply, Status>>;

/// Generates until the end and says the last word. Dropped or finished, the sessions close and the place is free.
pub(super) async fn run(
    ensemble: Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    replies: Replies,
    deadline: Deadline,
    _place: Place,
) {
    // Kept for the last word, which must reach even a client that left no room for anything else.
    let Ok(last_word) = replies.clone().reserve_owned().await else {
        return;
    };
    let mut listener = &replies;
    let result = tokio::select! {
        // What is finished is finished, whoever else calls.
        biased;
        result = generate(&ensemble, generation, vocabulary, deadline, &mut listener) => result,
        // A client that hangs up ends the work wherever it stands.
        () = replies.closed() => {
            tracing::debug!("the client hung up");
            return;
        }
        status = deadline.passed() => Err(status),
        () = ensemble.common.stop.cancelled() => Err(shutting_down()),
    };
    last_word.send(result.map(last_message));
}

impl Listener for &Replies {
    async fn token(
        &mut self,
        token: GeneratedToken,
        text: String,
        participation: Participation,
    ) -> Result<(), Status> {
        let reply = GenerateReply { token: Some(token), text, participation: Some(participation), end: None };
        // The time is looked at only where there is no room.
        let sent = match self.try_send(Ok(reply)) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(reply) | mpsc::error::TrySendError::Closed(reply)) => {
                self.send_timeout(reply, READER_PATIENCE).await
            }
        };
        sent.map_err(|_| {
            let seconds = READER_PATIENCE.as_secs();
            status(ErrorCode::DeadlineExceeded, format!("the client read no message for {seconds} s"))
        })
    }
}

fn last_message(ending: Ending) -> GenerateReply {
    let Ending { text, participation, end } = ending;
    GenerateReply { token: None, text, participation: Some(participation), end: Some(end) }
}
