//! Answers of many messages: `Generate`, a message for each token as soon as it is chosen, `Distributions`, and `Tokenizer`.
//!
//! Knows nothing about how tokens are chosen or what distributions say.

use std::sync::Arc;
use std::time::Duration;

use chorus_proto::status;
use chorus_proto::v1::{
    DistributionsReply, ErrorCode, GenerateReply, GeneratedToken, Participation, TokenizerChunk,
};
use chorus_text::Vocabulary;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;

use super::deadline::Deadline;
use super::distributions;
use super::generate::{Ending, Listener, generate};
use crate::admission::{Place, shutting_down};
use crate::ensemble::Ensemble;
use crate::request::{Distributions, Generation};

/// How long a client may leave its messages unread before the work for it ends.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a tokenizer in one message.
const TOKENIZER_CHUNK: usize = 1024 * 1024;

/// Where messages go.
pub(super) type Replies<T> = mpsc::Sender<Result<T, Status>>;

/// Generates until the end and says the last word. Dropped or finished, the sessions close and the place is free.
pub(super) async fn generation(
    ensemble: Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    replies: Replies<GenerateReply>,
    deadline: Deadline,
    _place: Place,
) {
    let mut listener = &replies;
    let work = async {
        let ending = generate(&ensemble, generation, vocabulary, deadline, &mut listener).await;
        ending.map(|ending| Some(last_message(ending)))
    };
    until_the_end(&ensemble, &replies, deadline, work).await;
}

/// Sends all distributions. Dropped or finished, the session closes and the place is free.
pub(super) async fn distributions(
    ensemble: Arc<Ensemble>,
    wanted: Distributions,
    vocabulary: Vocabulary,
    replies: Replies<DistributionsReply>,
    deadline: Deadline,
    _place: Place,
) {
    let work = async {
        let sent = distributions::distributions(&ensemble, wanted, vocabulary, deadline, &replies).await;
        sent.map(|()| None)
    };
    until_the_end(&ensemble, &replies, deadline, work).await;
}

/// A tokenizer in pieces, each of which is made when there is room for it.
pub(super) fn tokenizer(vocabulary: Vocabulary) -> impl Stream<Item = Result<TokenizerChunk, Status>> {
    let pieces = vocabulary.to_json().len().div_ceil(TOKENIZER_CHUNK);
    stream::iter(0..pieces).map(move |piece| {
        let data = vocabulary.to_json().as_bytes().chunks(TOKENIZER_CHUNK).nth(piece);
        Ok(TokenizerChunk { data: data.unwrap_or_default().to_vec().into() })
    })
}

/// Works until the end, and says the last word if there is one.
async fn until_the_end<T>(
    ensemble: &Ensemble,
    replies: &Replies<T>,
    deadline: Deadline,
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
        status = deadline.passed() => Err(status),
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

impl Listener for &Replies<GenerateReply> {
    async fn token(
        &mut self,
        token: GeneratedToken,
        text: String,
        participation: Participation,
    ) -> Result<(), Status> {
        let reply = GenerateReply { token: Some(token), text, participation: Some(participation), end: None };
        send(self, reply).await
    }
}

fn last_message(ending: Ending) -> GenerateReply {
    let Ending { text, participation, end } = ending;
    GenerateReply { token: None, text, participation: Some(participation), end: Some(end) }
}
