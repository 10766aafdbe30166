//! One turn of the model: take what is queued, run one forward over it, deliver. Natural batching, without timers.
//!
//! Never blocks, so that whoever holds it may call it. Knows nothing about threads, or about gRPC frames.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    time::Duration,
};

use chorus_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;
use tracing::Span;

use crate::{
    credit::Credit,
    engine::{Engine, Reply},
    operation::{Operation, SessionKey},
    predictor::Predictor,
};

/// Operations that are taken in before the next forward, or a command's worth more. However fast they come, nobody's
/// answer waits for longer than these and one forward take.
const ROUND_OPERATIONS: usize = 4096;

/// What a stream is sent, or why it ends. The channel has no bound of its own: a stream's [`Credit`] bounds what can be in
/// it.
pub(crate) type ReplySender = mpsc::UnboundedSender<Result<Delivery, Status>>;

/// What goes out together.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Answers that became ready together.
    Answers(Vec<Reply>),
    /// A stream's sessions, once, when this worker stops.
    Handovers(Vec<v1::Handover>),
}

/// What the model is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Operations of one stream, in order.
    Operations { stream: u64, operations: Vec<Admitted>, replies: ReplySender, span: Span },
    /// Where the sessions of a stream stand.
    HandOver { stream: u64, taker: oneshot::Sender<Vec<v1::Handover>> },
    /// A stream is over: drop its sessions and its reply channel.
    EndStream { stream: u64 },
    /// Take no more turns.
    Stop,
}

/// An operation with the credit that it holds.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) session: u64,
    pub(crate) operation: Operation,
    pub(crate) credit: Credit,
}

/// What a turn left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is more to compute.
    More,
    /// There is nothing to do until a command comes, or until sessions expire.
    Idle { expiry: Option<Instant> },
    /// This was the last one.
    Over,
}

/// Takes turns.
pub(crate) trait TakeTurns: Send {
    /// Takes in what is queued and runs one forward, if there is anything to compute.
    fn turn(&mut self) -> Turn;

    /// How long the last forward took; none before the first.
    fn last_forward(&self) -> Option<Duration>;
}

/// The engine with its queue of commands and the streams that wait for its answers.
pub(crate) struct Shell<P: Predictor> {
    engine: Engine<P>,
    inbox: mpsc::Receiver<Command>,
    streams: HashMap<u64, ReplySender>,
    /// Spans of the commands that asked for the next batch.
    asked: Vec<Span>,
    replies: Vec<Reply>,
    last_forward: Option<Duration>,
    is_over: bool,
}

impl<P: Predictor> Shell<P> {
    pub(crate) fn new(engine: Engine<P>, inbox: mpsc::Receiver<Command>) -> Self {
        Self {
            engine,
            inbox,
            streams: HashMap::new(),
            asked: Vec::new(),
            replies: Vec::new(),
            last_forward: None,
            is_over: false,
        }
    }

    /// Takes what is queued, within a round; breaks where this turn is the last.
    fn take_round(&mut self) -> ControlFlow<()> {
        let mut left = ROUND_OPERATIONS;
        while left > 0
            && let Ok(command) = self.inbox.try_recv()
        {
            match &command {
                Command::Stop => return ControlFlow::Break(()),
                Command::Operations { operations, .. } => left = left.saturating_sub(operations.len()),
                Command::HandOver { .. } | Command::EndStream { .. } => left -= 1,
            }
            self.handle(command);
        }
        ControlFlow::Continue(())
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Operations { stream, operations, replies, span } => {
                self.streams.insert(stream, replies);
                let now = Instant::now();
                span.in_scope(|| {
                    for Admitted { session, operation, credit } in operations {
                        let key = SessionKey { stream, session };
                        self.engine.apply(key, operation, credit, now, &mut self.replies);
                    }
                });
                self.asked.push(span);
            }
            Command::HandOver { stream, taker } => {
                // A stream that does not wait for it is gone.
                let _ = taker.send(self.engine.hand_over(stream));
            }
            Command::EndStream { stream } => {
                // What is ready is still delivered, then the stream's reply channel closes.
                self.deliver();
                self.engine.end_stream(stream);
                self.streams.remove(&stream);
            }
            Command::Stop => {}
        }
    }

    fn forward(&mut self) {
        let span = tracing::debug_span!("batch");
        self.asked.drain(..).for_each(|asked| {
            span.follows_from(asked);
        });
        let begin = Instant::now();
        let tokens = span.in_scope(|| self.engine.run_batch(begin, &mut self.replies));
        let took = begin.elapsed();
        self.engine.note_pace(tokens, took);
        self.last_forward = Some(took);
    }

    /// Sends every stream the answers that are ready for it, together.
    fn deliver(&mut self) {
        let mut by_stream: BTreeMap<u64, Vec<Reply>> = BTreeMap::new();
        for reply in self.replies.drain(..) {
            by_stream.entry(reply.stream).or_default().push(reply);
        }
        for (stream, replies) in by_stream {
            if let Some(sender) = self.streams.get(&stream) {
                // A stream that is gone needs no answers; its end is on its way to us.
                let _ = sender.send(Ok(Delivery::Answers(replies)));
            }
        }
    }
}

impl<P: Predictor + Send> TakeTurns for Shell<P>
where
    P::State: Send,
{
    fn turn(&mut self) -> Turn {
        if self.is_over || self.take_round().is_break() {
            self.is_over = true;
            return Turn::Over;
        }
        self.deliver();
        if self.engine.has_work() {
            self.forward();
            self.deliver();
        } else {
            self.engine.expire(Instant::now());
            self.asked.clear();
        }
        if self.engine.has_work() || !self.inbox.is_empty() {
            return Turn::More;
        }
        Turn::Idle { expiry: self.engine.next_expiry() }
    }

    fn last_forward(&self) -> Option<Duration> {
        self.last_forward
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        batcher::BatchLimits,
        operation::{Ask, Feed},
        predictor::{Prediction, PredictorError, Row},
    };

    /// Answers at once.
    struct Quick;

    impl Predictor for Quick {
        type State = ();

        fn vocabulary_size(&self) -> usize {
            1
        }

        fn fresh_state(&mut self) -> Result<(), PredictorError> {
            Ok(())
        }

        fn snapshot(&self, (): &()) -> Bytes {
            Bytes::new()
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), PredictorError> {
            Ok(())
        }

        fn forward(
            &mut self,
            _: &mut [Row<'_, ()>],
            _: &mut dyn FnMut(Prediction<'_>),
        ) -> Result<(), PredictorError> {
            Ok(())
        }
    }

    fn shell() -> (Shell<Quick>, mpsc::Sender<Command>) {
        let engine = Engine::new(Quick, String::new(), 8, Duration::from_secs(60), BatchLimits::default());
        let (commands, inbox) = mpsc::channel(256);
        (Shell::new(engine, inbox), commands)
    }

    fn admitted(operation: Operation) -> Admitted {
        Admitted { session: 1, operation, credit: Credit::default() }
    }

    /// A stream of operations that need no model, faster than they can be taken, does not hold up a feed.
    #[test]
    fn a_round_ends_however_many_operations_wait() {
        let (mut shell, commands) = shell();
        let (replies, mut receiver) = mpsc::unbounded_channel();
        let command = |operations| Command::Operations {
            stream: 1,
            operations,
            replies: replies.clone(),
            span: Span::none(),
        };
        let flood = || (0..1000).map(|_| admitted(Operation::Close { discard: false })).collect();
        let feed = Operation::Feed(Feed::new(1, vec![0], Ask::Nothing));
        commands.try_send(command(vec![admitted(Operation::Open(None)), admitted(feed)])).unwrap();
        (0..100).for_each(|_| commands.try_send(command(flood())).unwrap());
        assert_eq!(shell.turn(), Turn::More);
        assert!(shell.inbox.len() >= 90, "most of the flood waits for the next turns");
        let delivered = receiver.try_recv().unwrap().unwrap();
        assert!(
            matches!(delivered, Delivery::Answers(replies) if replies.len() == 1),
            "the feed is answered"
        );
        assert!(shell.last_forward().is_some());
    }

    #[test]
    fn a_turn_says_when_the_next_one_is_due() {
        let (mut shell, commands) = shell();
        assert_eq!(shell.turn(), Turn::Idle { expiry: None });
        let (replies, _receiver) = mpsc::unbounded_channel();
        let operations = vec![admitted(Operation::Open(None))];
        let command = Command::Operations { stream: 1, operations, replies, span: Span::none() };
        commands.try_send(command).unwrap();
        assert!(matches!(shell.turn(), Turn::Idle { expiry: Some(_) }));
        commands.try_send(Command::Stop).unwrap();
        assert_eq!([shell.turn(), shell.turn()], [Turn::Over; 2], "it stays over");
    }
}
