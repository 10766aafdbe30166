//! One Attach stream: frames of operations in, frames of answers out. Knows nothing about what a model computes.

use std::collections::VecDeque;

use chorus_proto::{
    MAX_MESSAGE_BYTES, status,
    v1::{AnswerFrame, ErrorCode, Handover, OperationFrame, answer},
};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    condition::{Board, Condition, News},
    credit::{self, Credit, StreamCredit},
    engine::Reply,
    failure,
    model_thread::Commands,
    operation::{self, Operation, OperationLimits, SessionKey},
    shell::{Admitted, Command, Delivery, ReplySender},
    telemetry::StreamMetrics,
};

/// Tag and length of one answer in a frame, at most.
const ANSWER_FRAMING_BYTES: usize = 16;

/// Operations that are handed on together at most, so that no stream's frame keeps the model's thread for long.
const COMMAND_OPERATIONS: usize = 1024;

/// How a process stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping {
    /// Take nothing new, answer what was taken.
    pub(crate) drain: CancellationToken,
    /// Wait for nobody any more.
    pub(crate) abort: CancellationToken,
}

/// The reading half of a stream.
#[derive(Debug)]
pub(crate) struct OperationReader {
    pub(crate) stream: u64,
    pub(crate) limits: OperationLimits,
    pub(crate) commands: Commands,
    pub(crate) replies: ReplySender,
    pub(crate) credit: StreamCredit,
    pub(crate) stopping: Stopping,
    pub(crate) board: Board,
    pub(crate) metrics: StreamMetrics,
}

/// Why no more operations are read.
#[derive(Debug)]
enum Ending {
    /// The coordinator has nothing more to ask.
    Complete,
    /// This process stops.
    Draining,
    /// The coordinator is gone, or the model is.
    Gone,
    /// What came was no frame.
    Broken(Status),
}

/// The writing half of a stream.
struct AnswerWriter {
    receiver: mpsc::UnboundedReceiver<Result<Delivery, Status>>,
    news: News,
    ready: VecDeque<Reply>,
    handovers: VecDeque<Handover>,
    condition: Option<Condition>,
    end: Option<Status>,
    metrics: StreamMetrics,
}

impl OperationReader {
    /// Reads until the stream ends, whichever way, then ends its sessions.
    pub(crate) async fn run<S>(self, mut frames: S)
    where
        S: Stream<Item = Result<OperationFrame, Status>> + Unpin,
    {
        let _attached = self.metrics.attach();
        let ending = loop {
            // Whatever has come already shares one turn of the model.
            let next = match self.next_frame(&mut frames).now_or_never() {
                Some(next) => next,
                None => self.frame_after_turn(&mut frames).await,
            };
            match next {
                Ok(frame) => {
                    if let Err(ending) = self.submit(frame).await {
                        break ending;
                    }
                }
                Err(ending) => break ending,
            }
        };
        tracing::debug!(?ending, "stream ends");
        self.end(ending).await;
    }

    /// The next frame after those that the model now sees to. Until it comes, the model computes early, behind whatever else is
    /// ready: our answers on their way out, and other processes, whose answers may be awaited together with ours.
    async fn frame_after_turn<S>(&self, frames: &mut S) -> Result<OperationFrame, Ending>
    where
        S: Stream<Item = Result<OperationFrame, Status>> + Unpin,
    {
        while self.commands.take_first_turn() {
            tokio::task::yield_now().await;
            if let Some(next) = self.next_frame(frames).now_or_never() {
                return next;
            }
            std::thread::yield_now();
        }
        self.next_frame(frames).await
    }

    async fn next_frame<S>(&self, frames: &mut S) -> Result<OperationFrame, Ending>
    where
        S: Stream<Item = Result<OperationFrame, Status>> + Unpin,
    {
        tokio::select! {
            // Stopping wins over reading on, so that a busy coordinator can't hold a shutdown up.
            biased;
            () = self.stopping.drain.cancelled() => Err(Ending::Draining),
            ending = self.gone() => Err(ending),
            frame = frames.next() => match frame {
                Some(Ok(frame)) => Ok(frame),
                Some(Err(status)) => Err(Ending::Broken(status)),
                // A coordinator that cancelled ends like this too; `end` tells the two apart by the reply channel.
                None => Err(Ending::Complete),
            },
        }
    }

    /// Hands a frame's operations to the model's thread, as far as the stream's credit goes, then waits for more.
    async fn submit(&self, frame: OperationFrame) -> Result<(), Ending> {
        let mut admitted = Vec::with_capacity(frame.operations.len());
        for operation in frame.operations {
            let session = operation.session;
            self.metrics.received(operation.encoded_len());
            match operation::read(operation, &self.limits) {
                Ok(operation) => {
                    let units = credit::units(&operation, &self.limits);
                    let credit = self.take_credit(units, &mut admitted).await?;
                    let Some((operation, credit)) = self.refuse_if_unsound(session, operation, credit)?
                    else {
                        continue;
                    };
                    admitted.push(Admitted { session, operation, credit });
                    if admitted.len() == COMMAND_OPERATIONS {
                        self.send(std::mem::take(&mut admitted)).await?;
                    }
                }
                Err(answer) => {
                    let credit = self.take_credit(1, &mut admitted).await?;
                    self.reply(Reply { stream: self.stream, answer: *answer, credit })?;
                }
            }
        }
        self.send(admitted).await
    }

    /// Answers an operation here where the device is not sound, for the model may hang with it; else gives it back.
    fn refuse_if_unsound(
        &self,
        session: u64,
        operation: Operation,
        credit: Credit,
    ) -> Result<Option<(Operation, Credit)>, Ending> {
        let Some(reason) = self.board.reason() else {
            return Ok(Some((operation, credit)));
        };
        let key = SessionKey { stream: self.stream, session };
        match Reply::refused(key, &operation, failure::unsound(&reason), credit) {
            Some(reply) => self.reply(reply).map(|()| None),
            // A session that is closed is gone with all the others.
            None => Ok(None),
        }
    }

    fn reply(&self, reply: Reply) -> Result<(), Ending> {
        self.replies.send(Ok(Delivery::Answers(vec![reply]))).map_err(|_| Ending::Gone)
    }

    /// Takes credit; where it has run out, what was admitted goes ahead, since only its answers bring credit back.
    async fn take_credit(&self, units: u32, admitted: &mut Vec<Admitted>) -> Result<Credit, Ending> {
        if let Some(credit) = self.credit.try_take(units) {
            return Ok(credit);
        }
        self.send(std::mem::take(admitted)).await?;
        self.commands.take_turn();
        tokio::select! {
            biased;
            ending = self.gone() => Err(ending),
            credit = self.credit.take(units) => Ok(credit),
        }
    }

    async fn send(&self, operations: Vec<Admitted>) -> Result<(), Ending> {
        if operations.is_empty() {
            return Ok(());
        }
        let (stream, replies, span) = (self.stream, self.replies.clone(), tracing::Span::current());
        let command = Command::Operations { stream, operations, replies, span, read: Instant::now() };
        self.commands.send(command).await.map_err(|_| Ending::Gone)
    }

    /// Resolves when nobody waits for answers any more, or when this process waits for nobody any more.
    async fn gone(&self) -> Ending {
        tokio::select! {
            biased;
            () = self.replies.closed() => Ending::Gone,
            () = self.stopping.abort.cancelled() => Ending::Gone,
            () = self.commands.closed() => Ending::Gone,
        }
    }

    async fn end(self, ending: Ending) {
        self.commands.take_turn();
        if let Ending::Complete | Ending::Draining = ending {
            // What was asked is answered first, unless the answers have nowhere to go.
            tokio::select! {
                biased;
                _ = self.gone() => {}
                () = self.credit.all_returned() => {}
            }
        }
        if let Ending::Draining = ending {
            self.hand_over().await;
        }
        let last_word = match ending {
            Ending::Complete => None,
            Ending::Broken(status) => Some(status),
            Ending::Draining | Ending::Gone => Some(status(ErrorCode::Unavailable, "the worker is stopping")),
        };
        if let Some(last_word) = last_word {
            let _ = self.replies.send(Err(last_word));
        }
        // Without the model's thread there are no sessions left to end.
        let _ = self.commands.send(Command::EndStream { stream: self.stream }).await;
        self.commands.take_turn();
    }
}

impl OperationReader {
    /// Whoever asked goes on elsewhere from where its sessions stand.
    async fn hand_over(&self) {
        let (taker, handovers) = oneshot::channel();
        if self.commands.send(Command::HandOver { stream: self.stream, taker }).await.is_err() {
            return;
        }
        self.commands.take_turn();
        tokio::select! {
            biased;
            _ = self.gone() => {}
            handovers = handovers => if let Ok(handovers) = handovers {
                let _ = self.replies.send(Ok(Delivery::Handovers(handovers)));
            }
        }
    }
}

/// The frames of answers that a stream writes: each holds every answer that is ready when the connection takes it, and what
/// has become of the device.
pub(crate) fn answer_frames(
    receiver: mpsc::UnboundedReceiver<Result<Delivery, Status>>,
    news: News,
    metrics: StreamMetrics,
) -> impl Stream<Item = Result<AnswerFrame, Status>> + Send + 'static {
    let (ready, handovers) = (VecDeque::new(), VecDeque::new());
    let writer = AnswerWriter { receiver, news, ready, handovers, condition: None, end: None, metrics };
    stream::unfold(writer, |mut writer| async move { Some((writer.next_frame().await?, writer)) })
}

impl AnswerWriter {
    async fn next_frame(&mut self) -> Option<Result<AnswerFrame, Status>> {
        self.condition = self.news.take();
        while self.is_idle() && self.end.is_none() {
            tokio::select! {
                // Whoever is told first of the device knows why its answers are failures.
                biased;
                condition = self.news.next() => self.condition = Some(condition),
                message = self.receiver.recv() => self.take(message?),
            }
        }
        while self.end.is_none()
            && let Ok(message) = self.receiver.try_recv()
        {
            self.take(message);
        }
        if !self.is_idle() {
            return Some(Ok(self.pack()));
        }
        // Nothing follows the end.
        self.receiver.close();
        self.end.take().map(Err)
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.handovers.is_empty() && self.condition.is_none()
    }

    fn take(&mut self, message: Result<Delivery, Status>) {
        match message {
            Ok(Delivery::Answers(replies)) => self.ready.extend(replies),
            Ok(Delivery::Handovers(handovers)) => self.handovers.extend(handovers),
            Err(status) => self.end = Some(status),
        }
    }

    /// As many ready answers as fit into a message, then handovers, at least one of them. The answers' credit goes back.
    fn pack(&mut self) -> AnswerFrame {
        let (mut answers, mut handovers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(reply) = self.ready.pop_front() {
            let encoded = reply.answer.encoded_len();
            bytes += encoded + ANSWER_FRAMING_BYTES;
            if bytes > MAX_MESSAGE_BYTES && !answers.is_empty() {
                self.ready.push_front(reply);
                break;
            }
            self.metrics.sent(encoded);
            if let Some(answer::Answer::Failure(failure)) = &reply.answer.answer {
                self.metrics.failed(failure.code());
            }
            answers.push(reply.answer);
            drop(reply.credit);
        }
        while self.ready.is_empty()
            && let Some(handover) = self.handovers.pop_front()
        {
            let encoded = handover.encoded_len();
            bytes += encoded + ANSWER_FRAMING_BYTES;
            if bytes > MAX_MESSAGE_BYTES && !(answers.is_empty() && handovers.is_empty()) {
                self.handovers.push_front(handover);
                break;
            }
            self.metrics.sent(encoded);
            handovers.push(handover);
        }
        let condition = self.condition.take().map(|condition| condition.to_wire());
        AnswerFrame { answers, handovers, condition }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chorus_proto::v1::{self, Answer};

    use super::*;

    fn reply(session: u64, bytes: usize) -> Reply {
        let logits = v1::Logits { values: Bytes::from(vec![0; bytes]), norms: None };
        let answer =
            Answer { session, step: 1, answer: Some(answer::Answer::Logits(logits)), snapshot: None };
        Reply { stream: 1, answer, credit: Credit::default() }
    }

    fn sessions(frame: &AnswerFrame) -> Vec<u64> {
        frame.answers.iter().map(|answer| answer.session).collect()
    }

    #[tokio::test]
    async fn a_frame_holds_everything_that_is_ready_up_to_the_largest_message() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let answers = |replies| Ok(Delivery::Answers(replies));
        sender.send(answers(vec![reply(1, 10), reply(2, MAX_MESSAGE_BYTES / 2)])).unwrap();
        sender.send(answers(vec![reply(3, MAX_MESSAGE_BYTES / 2), reply(4, 10)])).unwrap();
        sender.send(Err(Status::unavailable("over"))).unwrap();
        let frames: Vec<_> =
            answer_frames(receiver, Board::default().news(), StreamMetrics::new()).collect().await;
        let [Ok(first), Ok(second), Err(status)] = frames.as_slice() else {
            panic!("two frames and the end, not {}", frames.len());
        };
        assert_eq!((sessions(first), sessions(second)), (vec![1, 2], vec![3, 4]));
        assert!(first.encoded_len() <= MAX_MESSAGE_BYTES);
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_gives_its_credit_back() {
        let stream = StreamCredit::new();
        let (sender, receiver) = mpsc::unbounded_channel();
        let credit = stream.try_take(1).unwrap();
        sender.send(Ok(Delivery::Answers(vec![Reply { credit, ..reply(1, 10) }]))).unwrap();
        let mut frames = Box::pin(answer_frames(receiver, Board::default().news(), StreamMetrics::new()));
        let mut returned = Box::pin(stream.all_returned());
        assert!(futures::poll!(&mut returned).is_pending());
        frames.next().await.unwrap().unwrap();
        assert!(futures::poll!(&mut returned).is_ready());
    }

    /// One frame that asks for one row of 100,000 logits, about 400 KB.
    fn ask_for_a_large_row() -> OperationFrame {
        let ask = v1::feed::Ask::Logits(v1::AskLogits { rows: v1::Rows::Next.into(), ..Default::default() });
        let feed = v1::Feed { step: 1, tokens: vec![1], ask: Some(ask), ..v1::Feed::default() };
        let operation = Some(v1::operation::Operation::Feed(feed));
        OperationFrame { operations: vec![v1::Operation { session: 1, operation }] }
    }

    #[tokio::test]
    async fn a_stream_without_credit_is_not_read_from_until_its_answers_are_taken() {
        let (commands, mut inbox) = Commands::unattended(1000);
        let (replies, _receiver) = mpsc::unbounded_channel();
        let reader = OperationReader {
            stream: 1,
            limits: OperationLimits {
                vocabulary_size: 100_000,
                state_bytes: 0,
                max_feed_tokens: 1,
                max_answer_rows: 1,
            },
            commands,
            replies,
            credit: StreamCredit::new(),
            stopping: Stopping::default(),
            board: Board::default(),
            metrics: StreamMetrics::new(),
        };
        let frames = stream::iter((0..200).map(|_| Ok(ask_for_a_large_row())));
        let mut reading = Box::pin(tokio::task::unconstrained(reader.run(frames)));

        assert!(futures::poll!(&mut reading).is_pending());
        let mut admitted = Vec::new();
        assert_eq!(inbox.recv_many(&mut admitted, 1000).await, 128, "two of the largest messages");
        assert!(futures::poll!(&mut reading).is_pending());
        assert!(inbox.try_recv().is_err(), "nothing more while the answers are outstanding");

        admitted.clear();
        assert!(futures::poll!(&mut reading).is_pending());
        assert_eq!(inbox.recv_many(&mut admitted, 1000).await, 72, "the rest");
        admitted.clear();
        assert!(futures::poll!(&mut reading).is_ready());
        assert!(matches!(inbox.try_recv(), Ok(Command::EndStream { stream: 1 })));
    }
}
