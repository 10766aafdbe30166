//! One stream to a worker while it lasts: operations are queued, answers find the feed that waits for them, and when
//! the stream ends every waiting feed fails at once.
//!
//! Knows nothing about connecting or reconnecting, nor about what an answer should look like.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chorus_proto::shortened;
use chorus_proto::v1::{self, AnswerFrame, Operation, answer::Answer as Kind, operation};
use prost::Message as _;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::Line;
use super::answer::{self, LONGEST_REASON, Question};
use super::frames::{OperationFrames, QueuedOperation};
use super::spare_rows::SpareRows;
use crate::replica::{Answered, Feed, ReplicaError, SessionId};
use crate::snapshot::Snapshot;
use crate::telemetry::Lost;
use crate::traffic::{Traffic, TrafficCounts};

/// Feeds that may wait to be written. One more waits for room, as long as whoever asks waits for it.
const QUEUED_FEEDS: usize = 1024;
/// Opens and closes that may wait to be written. Nobody waits for them, so none has to wait for room: a worker that
/// leaves so many unread does not read.
const QUEUED_NOTICES: usize = 16 * 1024;
/// A worker that leaves a feed unanswered which was given up, and says nothing else for this long, is not there.
const MOST_OWING: Duration = Duration::from_secs(2);
/// A worker that let so many feeds pass their deadlines, with no answer on the whole link in between, is hung.
const MOST_LATE: u32 = 4;

pub(super) struct Attachment {
    vocabulary_size: u32,
    spare_rows: SpareRows,
    traffic: Arc<Traffic>,
    queue: Mutex<Option<mpsc::UnboundedSender<QueuedOperation>>>,
    room: Arc<Semaphore>,
    room_for_notices: Arc<Semaphore>,
    /// Feeds that were given up since the last answer.
    late: AtomicU32,
    /// When something came last, or when something began to be waited for.
    heard: LastHeard,
    /// A feed was given up, and nothing has come since it was sent.
    is_owing: AtomicBool,
    /// A sound answer came.
    useful: AtomicBool,
    waiting: Mutex<Waiting>,
    /// Cancelled when the stream has to end, for the reason in `fault`.
    reset: CancellationToken,
    fault: OnceLock<Fault>,
}

/// Why a stream is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// What it carries can't be trusted.
    BrokeProtocol,
    /// It does not read, or it does not answer.
    Hung,
    /// Nothing comes of what was asked.
    Silent,
}

/// The feeds that wait for an answer, at most one for each session.
enum Waiting {
    /// By numbers of our own choice, so that the hash needs no secret; and its order is the same in every run.
    Attached(FxHashMap<SessionId, WaitingFeed>),
    /// The worker says that its device is not sound: nothing is asked of it until it says that it is.
    Unsound {
        reason: String,
    },
    Ended {
        reason: String,
    },
}

struct WaitingFeed {
    step: u64,
    reply: oneshot::Sender<v1::Answer>,
}

/// A moment that many may set.
struct LastHeard {
    beginning: Instant,
    /// Microseconds since the beginning.
    after: AtomicU64,
}

/// Forgets a waiting feed when whoever waits gives up.
struct Registration<'a> {
    attachment: &'a Attachment,
    session: SessionId,
}

impl Attachment {
    /// An attachment to a model of so many tokens, and the frames to be sent.
    pub(super) fn new(vocabulary_size: u32, traffic: Arc<Traffic>) -> (Self, OperationFrames) {
        let (queue, queued) = mpsc::unbounded_channel();
        let attachment = Self {
            vocabulary_size,
            spare_rows: SpareRows::default(),
            traffic,
            queue: Mutex::new(Some(queue)),
            room: Arc::new(Semaphore::new(QUEUED_FEEDS)),
            room_for_notices: Arc::new(Semaphore::new(QUEUED_NOTICES)),
            late: AtomicU32::new(0),
            heard: LastHeard::now(),
            is_owing: AtomicBool::new(false),
            useful: AtomicBool::new(false),
            waiting: Mutex::new(Waiting::Attached(FxHashMap::default())),
            reset: CancellationToken::new(),
            fault: OnceLock::new(),
        };
        (attachment, OperationFrames::new(queued))
    }

    /// Queues an operation that nobody waits for. A worker whose device is not sound has no sessions.
    pub(super) fn send(&self, session: SessionId, operation: operation::Operation) {
        if matches!(*self.waiting(), Waiting::Unsound { .. }) {
            return;
        }
        match Arc::clone(&self.room_for_notices).try_acquire_owned() {
            Ok(room) => {
                let operation = Operation { session, operation: Some(operation) };
                self.enqueue(QueuedOperation::new(operation, room));
            }
            Err(_) => self.reset(Fault::Hung),
        }
    }

    /// Queues a feed and waits for its answer.
    pub(super) async fn feed(&self, feed: Feed) -> Result<Answered, ReplicaError> {
        let question = Question::of(&feed, self.vocabulary_size, self.spare_rows.clone());
        let (session, step, plan) = (feed.session, feed.step, feed.plan);
        let (tokens, rows) = (feed.tokens.len(), feed.ask.rows(feed.tokens.len()));
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return Err(self.lost());
        };
        let (reply, answer) = oneshot::channel();
        let registration = self.register(session, WaitingFeed { step, reply })?;
        let operation = operation::Operation::Feed(answer::wire_feed(feed));
        let operation = QueuedOperation::new(Operation { session, operation: Some(operation) }, room);
        let sent = operation.bytes as u64;
        self.traffic.add(plan, TrafficCounts { sent, received: 0, tokens: tokens as u64, rows: rows as u64 });
        self.enqueue(operation);
        let answer = answer.await.map_err(|_| self.lost())?;
        drop(registration);
        let received = answer.encoded_len() as u64;
        self.traffic.add(plan, TrafficCounts { received, ..TrafficCounts::default() });
        let (snapshot, answer) = (answer.snapshot, question.read(answer.answer).await);
        if let Some(snapshot) = &snapshot {
            self.traffic.link.snapshot(snapshot.state.len());
        }
        match answer {
            Ok(_) => self.useful.store(true, Ordering::Relaxed),
            Err(ReplicaError::Protocol { .. }) => self.reset(Fault::BrokeProtocol),
            Err(_) => {}
        }
        // One that is damaged is as good as none.
        Ok(Answered { answer: answer?, snapshot: snapshot.and_then(Snapshot::read) })
    }

    /// For how long nothing has come while something is waited for.
    pub(super) fn silence(&self) -> Duration {
        match &*self.waiting() {
            Waiting::Attached(feeds) if !feeds.is_empty() || self.is_owing() => self.heard.elapsed(),
            Waiting::Attached(_) | Waiting::Unsound { .. } | Waiting::Ended { .. } => Duration::ZERO,
        }
    }

    fn is_owing(&self) -> bool {
        self.is_owing.load(Ordering::Relaxed)
    }

    /// Resolves when a feed was given up and nothing at all has come for long: not even that it was given up, which a worker
    /// answers, too. So a connection is found of which nobody tells that it is none any more, without waiting for its pings.
    async fn lost_for_good(&self) {
        loop {
            tokio::time::sleep(MOST_OWING / 4).await;
            if self.is_owing() && self.heard.elapsed() >= MOST_OWING {
                return;
            }
        }
    }

    /// A feed was given up at its deadline.
    pub(super) fn late(&self) {
        if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_LATE {
            self.reset(Fault::Hung);
        }
    }

    /// An answer that looked sound was not.
    pub(super) fn discredit(&self) {
        self.reset(Fault::BrokeProtocol);
    }

    /// Whether a sound answer came.
    pub(super) fn was_useful(&self) -> bool {
        self.useful.load(Ordering::Relaxed)
    }

    /// Whether the stream was given up because the worker does not read or does not answer.
    pub(super) fn is_hung(&self) -> bool {
        self.fault.get() == Some(&Fault::Hung)
    }

    /// Routes answers until the stream ends, and says why it ended: in a word, and for people.
    pub(super) async fn carry(&self, answers: &mut Streaming<AnswerFrame>, line: &Line) -> (Lost, String) {
        let mut lost = pin!(self.lost_for_good());
        loop {
            tokio::select! {
                // Whoever found an answer unusable decides; what else the stream may bring is not wanted.
                biased;
                () = self.reset.cancelled() => return self.fault(),
                () = &mut lost => self.reset(Fault::Silent),
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => {
                        if let Some(condition) = frame.condition {
                            self.note_condition(&condition, line);
                        }
                        self.route(frame.answers);
                        frame.handovers.into_iter().for_each(|handover| line.take_over(handover));
                    }
                    Ok(None) => return (Lost::Ended, "the worker ended the stream".to_owned()),
                    Err(status) => {
                        let said = shortened(status.message(), LONGEST_REASON);
                        return (Lost::Broken, format!("the link broke ({said})"));
                    }
                },
            }
        }
    }

    /// Takes in what the worker says of its device. Whoever is failed by it finds the reason.
    fn note_condition(&self, condition: &v1::Condition, line: &Line) {
        if condition.sound {
            let mut waiting = self.waiting();
            if let Waiting::Unsound { .. } = *waiting {
                *waiting = Waiting::Attached(FxHashMap::default());
                drop(waiting);
                line.set_sound();
            }
            return;
        }
        let said = shortened(&condition.reason, LONGEST_REASON);
        let reason = format!("its device is not sound: {said}");
        line.set_unsound(&reason);
        // Dropping the replies wakes every waiting feed.
        let mut waiting = self.waiting();
        if let Waiting::Attached(_) | Waiting::Unsound { .. } = *waiting {
            *waiting = Waiting::Unsound { reason };
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

    fn reset(&self, fault: Fault) {
        // The first fault is the reason.
        let _ = self.fault.set(fault);
        self.reset.cancel();
    }

    fn fault(&self) -> (Lost, String) {
        let (lost, said) = match self.fault.get() {
            Some(Fault::Hung) => (Lost::Hung, "it hangs: it does not answer on a link that is open"),
            Some(Fault::Silent) => (Lost::Silent, "nothing comes from it any more"),
            Some(Fault::BrokeProtocol) | None => (Lost::BrokeProtocol, "it broke the protocol"),
        };
        (lost, said.to_owned())
    }

    fn enqueue(&self, operation: QueuedOperation) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            // A receiver that is gone means that the stream ends: the waiting feeds hear of it from `end`.
            let _ = queue.send(operation);
        }
    }

    fn register(&self, session: SessionId, feed: WaitingFeed) -> Result<Registration<'_>, ReplicaError> {
        match &mut *self.waiting() {
            Waiting::Attached(feeds) => {
                if feeds.is_empty() && !self.is_owing() {
                    self.heard.mark();
                }
                feeds.insert(session, feed)
            }
            Waiting::Unsound { reason } | Waiting::Ended { reason } => {
                return Err(ReplicaError::Lost { reason: reason.clone() });
            }
        };
        self.traffic.link.asked();
        Ok(Registration { attachment: self, session })
    }

    /// Passes the answers of a frame on.
    fn route(&self, answers: Vec<v1::Answer>) {
        if answers.is_empty() {
            return;
        }
        // Whatever they are about, the worker is at work.
        self.late.store(0, Ordering::Relaxed);
        self.heard.mark();
        self.is_owing.store(false, Ordering::Relaxed);
        if let Waiting::Attached(feeds) = &mut *self.waiting() {
            answers.into_iter().for_each(|answer| self.pass_on(answer, feeds));
        }
    }

    fn pass_on(&self, answer: v1::Answer, feeds: &mut FxHashMap<SessionId, WaitingFeed>) {
        let Some(waiting) = feeds.get(&answer.session) else {
            tracing::trace!(answer.session, answer.step, "nobody waits for this answer any more");
            return;
        };
        // Step 0 says that the session could not be opened, so its first feed fails too. It can say nothing else.
        let failed_to_open = answer.step == 0 && matches!(answer.answer, Some(Kind::Failure(_)));
        if answer.step > waiting.step || (answer.step == 0 && !failed_to_open) {
            tracing::warn!(answer.session, answer.step, "the worker answered a step that was never fed");
            self.reset(Fault::BrokeProtocol);
        } else if (failed_to_open || answer.step == waiting.step)
            && let Some(waiting) = feeds.remove(&answer.session)
        {
            // Whoever waited may have given up in this moment.
            let _ = waiting.reply.send(answer);
        }
    }

    fn lost(&self) -> ReplicaError {
        let reason = match &*self.waiting() {
            Waiting::Unsound { reason } | Waiting::Ended { reason } => reason.clone(),
            Waiting::Attached(_) => "the link is closing".to_owned(),
        };
        ReplicaError::Lost { reason }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastHeard {
    fn now() -> Self {
        Self { beginning: Instant::now(), after: AtomicU64::new(0) }
    }

    fn mark(&self) {
        self.after.store(self.since_beginning(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        let after = self.after.load(Ordering::Relaxed);
        Duration::from_micros(self.since_beginning().saturating_sub(after))
    }

    fn since_beginning(&self) -> u64 {
        u64::try_from(self.beginning.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.attachment.traffic.link.settled();
        if let Waiting::Attached(feeds) = &mut *self.attachment.waiting() {
            // What was answered is not here any more.
            if feeds.remove(&self.session).is_some() {
                self.attachment.is_owing.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn close() -> operation::Operation {
        operation::Operation::Close(v1::Close { discard: true })
    }

    #[tokio::test]
    async fn what_a_worker_leaves_unread_is_bounded() {
        let (attachment, mut frames) = Attachment::new(8, Arc::new(Traffic::new("alto")));
        (0..QUEUED_NOTICES as u64).for_each(|session| attachment.send(session, close()));
        assert!(!attachment.is_hung());
        let written = frames.next().await.unwrap().operations.len();
        (0..written as u64).for_each(|session| attachment.send(session, close()));
        assert!(!attachment.is_hung(), "what is written makes room");
        attachment.send(0, close());
        assert!(attachment.is_hung() && attachment.reset.is_cancelled());
        attachment.finish();
        let left: usize = frames.map(|frame| frame.operations.len()).collect::<Vec<_>>().await.iter().sum();
        assert_eq!(left, QUEUED_NOTICES);
    }

    #[tokio::test]
    async fn nothing_but_a_failure_answers_step_0() {
        let answer = |answer| v1::Answer { session: 7, step: 0, answer: Some(answer), snapshot: None };
        for (kind, broken) in
            [(Kind::Failure(v1::Failure::default()), false), (Kind::Advanced(v1::Advanced {}), true)]
        {
            let (attachment, _frames) = Attachment::new(8, Arc::new(Traffic::new("alto")));
            let (reply, mut heard) = oneshot::channel();
            let _registration = attachment.register(7, WaitingFeed { step: 1, reply }).unwrap();
            attachment.route(vec![answer(kind)]);
            assert_eq!(attachment.reset.is_cancelled(), broken);
            assert_eq!(heard.try_recv().is_ok(), !broken);
        }
    }

    #[test]
    fn only_an_unbroken_silence_is_hung() {
        let (attachment, _frames) = Attachment::new(8, Arc::new(Traffic::new("alto")));
        for _ in 0..3 {
            (1..MOST_LATE).for_each(|_| attachment.late());
            attachment.route(vec![v1::Answer { session: 7, step: 1, ..v1::Answer::default() }]);
        }
        assert!(!attachment.is_hung());
        (0..MOST_LATE).for_each(|_| attachment.late());
        assert!(attachment.is_hung());
    }
}
