//! One stream to a worker while it lasts: operations are queued, answers find the feed that waits for them, and when
//! the stream ends every waiting feed fails at once.
//!
//! Knows nothing about connecting or reconnecting, nor about what an answer should look like.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chorus_proto::v1::{self, AnswerFrame, Operation, operation};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::answer::{self, Question};
use super::frames::{OperationFrames, QueuedOperation};
use crate::member::{Answer, Feed, MemberError, SessionId};

/// Feeds that may wait to be written. Opens and closes need no room: there is one of each for a session.
const QUEUE_LENGTH: usize = 1024;

pub(super) struct Attachment {
    vocabulary_size: u32,
    queue: Mutex<Option<mpsc::UnboundedSender<QueuedOperation>>>,
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    /// Cancelled when an answer broke the protocol: the stream can't be trusted any more.
    reset: CancellationToken,
}

/// The feeds that wait for an answer, at most one for each session.
enum Waiting {
    Attached(HashMap<SessionId, WaitingFeed>),
    Ended { reason: String },
}

struct WaitingFeed {
    step: u64,
    reply: oneshot::Sender<v1::Answer>,
}

/// Forgets a waiting feed when whoever waits gives up.
struct Registration<'a> {
    attachment: &'a Attachment,
    session: SessionId,
}

impl Attachment {
    /// An attachment to a model of so many tokens, and the frames to be sent.
    pub(super) fn new(vocabulary_size: u32) -> (Self, OperationFrames) {
        let (queue, queued) = mpsc::unbounded_channel();
        let attachment = Self {
            vocabulary_size,
            queue: Mutex::new(Some(queue)),
            room: Arc::new(Semaphore::new(QUEUE_LENGTH)),
            waiting: Mutex::new(Waiting::Attached(HashMap::new())),
            reset: CancellationToken::new(),
        };
        (attachment, OperationFrames::new(queued))
    }

    /// Queues an operation that nobody waits for.
    pub(super) fn send(&self, session: SessionId, operation: operation::Operation) {
        self.enqueue(session, operation, None);
    }

    /// Queues a feed and waits for its answer.
    pub(super) async fn feed(&self, feed: Feed) -> Result<Answer, MemberError> {
        let question = Question::of(&feed, self.vocabulary_size);
        let (session, step) = (feed.session, feed.step);
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return Err(self.lost());
        };
        let (reply, answer) = oneshot::channel();
        let registration = self.register(session, WaitingFeed { step, reply })?;
        self.enqueue(session, operation::Operation::Feed(answer::wire_feed(feed)), Some(room));
        let answer = answer.await.map_err(|_| self.lost())?;
        drop(registration);
        let answer = question.read(answer).await;
        if matches!(answer, Err(MemberError::Protocol { .. })) {
            self.reset.cancel();
        }
        answer
    }

    /// Routes answers until the stream ends, and says why it ended.
    pub(super) async fn carry(&self, answers: &mut Streaming<AnswerFrame>) -> String {
        loop {
            tokio::select! {
                // Whoever found an answer unusable decides; what else the stream may bring is not wanted.
                biased;
                () = self.reset.cancelled() => return "it broke the protocol".to_owned(),
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => frame.answers.into_iter().for_each(|answer| self.route(answer)),
                    Ok(None) => return "the worker ended the stream".to_owned(),
                    Err(status) => return format!("the link broke ({})", status.message()),
                },
            }
        }
    }

    /// Takes no more operations; what is queued is still sent, and then the stream ends.
    pub(super) fn finish(&self) {
        self.room.close();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Fails everything that waits, now and later.
    pub(super) fn end(&self, reason: &str) {
        self.finish();
        // Dropping the replies wakes every waiting feed.
        *self.waiting() = Waiting::Ended { reason: reason.to_owned() };
    }

    fn enqueue(
        &self,
        session: SessionId,
        operation: operation::Operation,
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            let operation = Operation { session, operation: Some(operation) };
            // A receiver that is gone means that the stream ends: the waiting feeds hear of it from `end`.
            let _ = queue.send(QueuedOperation { operation, _room: room });
        }
    }

    fn register(&self, session: SessionId, feed: WaitingFeed) -> Result<Registration<'_>, MemberError> {
        match &mut *self.waiting() {
            Waiting::Attached(feeds) => feeds.insert(session, feed),
            Waiting::Ended { reason } => {
                return Err(MemberError::Lost { reason: reason.clone() });
            }
        };
        Ok(Registration { attachment: self, session })
    }

    fn route(&self, answer: v1::Answer) {
        let Waiting::Attached(feeds) = &mut *self.waiting() else {
            return;
        };
        let Some(waiting) = feeds.get(&answer.session) else {
            tracing::trace!(answer.session, answer.step, "nobody waits for this answer any more");
            return;
        };
        // Step 0 says that the session could not be opened, so its first feed fails too.
        let failed_to_open = answer.step == 0;
        if answer.step > waiting.step {
            tracing::warn!(answer.session, answer.step, "the worker answered a step that was never fed");
            self.reset.cancel();
        } else if (failed_to_open || answer.step == waiting.step)
            && let Some(waiting) = feeds.remove(&answer.session)
        {
            // Whoever waited may have given up in this moment.
            let _ = waiting.reply.send(answer);
        }
    }

    fn lost(&self) -> MemberError {
        let reason = match &*self.waiting() {
            Waiting::Ended { reason } => reason.clone(),
            Waiting::Attached(_) => "the link is closing".to_owned(),
        };
        MemberError::Lost { reason }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if let Waiting::Attached(feeds) = &mut *self.attachment.waiting() {
            feeds.remove(&self.session);
        }
    }
}
