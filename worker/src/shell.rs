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
    batcher::Waiting,
    condition::{Board, Condition},
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
    /// Operations of one stream, in order, and when they were read.
    Operations { stream: u64, operations: Vec<Admitted>, replies: ReplySender, span: Span, read: Instant },
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
    /// There is nothing to do until a command comes, or until sessions expire or a probe is due.
    Idle { due: Option<Instant> },
    /// This was the last one.
    Over,
}

/// On whose thread a turn is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnOn {
    /// The model's own.
    OwnThread,
    /// That of whoever has queued commands: others wait for it.
    LentThread,
}

/// Takes turns.
pub(crate) trait TakeTurns: Send {
    /// Takes in what is queued and runs one forward, if there is anything to compute. A probe that is due runs on the
    /// model's own thread only: it is many tokens long, and where it hangs, connections have to go on.
    fn turn(&mut self, on: TurnOn, now: Instant) -> Turn;

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
    board: Board,
    last_forward: Option<Duration>,
    is_over: bool,
}

impl<P: Predictor> Shell<P> {
    /// What becomes known of the device is published on the board.
    pub(crate) fn new(engine: Engine<P>, inbox: mpsc::Receiver<Command>, board: Board) -> Self {
        Self {
            engine,
            inbox,
            streams: HashMap::new(),
            asked: Vec::new(),
            replies: Vec::new(),
            board,
            last_forward: None,
            is_over: false,
        }
    }

    /// Takes what is queued, within a round; breaks where this turn is the last.
    fn take_round(&mut self, now: Instant) -> ControlFlow<()> {
        let mut left = ROUND_OPERATIONS;
        while left > 0
            && let Ok(command) = self.inbox.try_recv()
        {
            match &command {
                Command::Stop => return ControlFlow::Break(()),
                Command::Operations { operations, .. } => left = left.saturating_sub(operations.len()),
                Command::HandOver { .. } | Command::EndStream { .. } => left -= 1,
            }
            self.handle(command, now);
        }
        ControlFlow::Continue(())
    }

    fn handle(&mut self, command: Command, now: Instant) {
        match command {
            Command::Operations { stream, operations, replies, span, read } => {
                self.streams.insert(stream, replies);
                span.in_scope(|| {
                    for Admitted { session, operation, credit } in operations {
                        let key = SessionKey { stream, session };
                        let waiting = Waiting { operation, credit, since: read };
                        self.engine.take_in(key, waiting, now, &mut self.replies);
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

    fn forward(&mut self, now: Instant) {
        let span = tracing::debug_span!("batch");
        self.asked.drain(..).for_each(|asked| {
            span.follows_from(asked);
        });
        let begin = Instant::now();
        let tokens = span.in_scope(|| self.engine.run_batch(now, &mut self.replies));
        let took = begin.elapsed();
        self.engine.note_pace(tokens, took);
        self.last_forward = Some(took);
    }

    /// Runs a probe. How long it took says nothing about forwards for sessions.
    fn probe(&mut self, now: Instant) {
        self.engine.probe(now, &mut self.replies);
        self.board.publish(self.engine.condition());
    }

    /// Takes in what was found from outside: that a turn did not end.
    fn heed_board(&mut self, now: Instant) {
        if *self.engine.condition() == Condition::Sound
            && let Some(reason) = self.board.reason()
        {
            self.engine.found_unsound(reason, now, &mut self.replies);
        }
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
    fn turn(&mut self, on: TurnOn, now: Instant) -> Turn {
        if self.is_over || self.take_round(now).is_break() {
            self.is_over = true;
            return Turn::Over;
        }
        self.heed_board(now);
        self.deliver();
        if on == TurnOn::OwnThread && self.engine.is_probe_due(now) {
            self.probe(now);
            self.deliver();
        }
        if self.engine.has_work() {
            self.forward(now);
            self.heed_board(now);
            self.deliver();
        } else {
            self.engine.expire(now);
            self.asked.clear();
        }
        if self.engine.has_work() || !self.inbox.is_empty() {
            return Turn::More;
        }
        Turn::Idle { due: self.engine.next_due() }
    }

    fn last_forward(&self) -> Option<Duration> {
        self.last_forward
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{ErrorCode, answer::Answer as Kind};

    use super::*;
    use crate::{
        batcher::BatchLimits,
        operation::{Ask, Feed, Origin, Rows},
        scripted_device::{Manner, Manners, ScriptedDevice},
    };

    fn shell() -> (Shell<ScriptedDevice>, mpsc::Sender<Command>, Manners, Board) {
        let (device, manners) = ScriptedDevice::new();
        let engine = Engine::new(device, String::new(), 8, Duration::from_secs(60), BatchLimits::default());
        let (commands, inbox) = mpsc::channel(256);
        let board = Board::default();
        (Shell::new(engine, inbox, board.clone()), commands, manners, board)
    }

    fn admitted(operation: Operation) -> Admitted {
        Admitted { session: 1, operation, credit: Credit::default() }
    }

    /// A stream of operations that need no model, faster than they can be taken, does not hold up a feed.
    #[test]
    fn a_round_ends_however_many_operations_wait() {
        let (mut shell, commands, ..) = shell();
        let (replies, mut receiver) = mpsc::unbounded_channel();
        let command = |operations| Command::Operations {
            stream: 1,
            operations,
            replies: replies.clone(),
            span: Span::none(),
            read: Instant::now(),
        };
        let flood = || (0..1000).map(|_| admitted(Operation::Close { discard: false })).collect();
        let feed = Operation::Feed(Feed::new(1, vec![0], Ask::Nothing));
        commands.try_send(command(vec![admitted(Operation::Open(Origin::Start)), admitted(feed)])).unwrap();
        (0..100).for_each(|_| commands.try_send(command(flood())).unwrap());
        assert_eq!(shell.turn(TurnOn::OwnThread, Instant::now()), Turn::More);
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
        let (mut shell, commands, ..) = shell();
        assert_eq!(shell.turn(TurnOn::OwnThread, Instant::now()), Turn::Idle { due: None });
        let (replies, _receiver) = mpsc::unbounded_channel();
        let operations = vec![admitted(Operation::Open(Origin::Start))];
        let command =
            Command::Operations { stream: 1, operations, replies, span: Span::none(), read: Instant::now() };
        commands.try_send(command).unwrap();
        assert!(matches!(shell.turn(TurnOn::OwnThread, Instant::now()), Turn::Idle { due: Some(_) }));
        commands.try_send(Command::Stop).unwrap();
        assert_eq!(
            [shell.turn(TurnOn::OwnThread, Instant::now()), shell.turn(TurnOn::OwnThread, Instant::now())],
            [Turn::Over; 2],
            "it stays over"
        );
    }

    /// A shell whose device is probed so often, with one stream on which things are asked.
    struct Probed {
        shell: Shell<ScriptedDevice>,
        commands: mpsc::Sender<Command>,
        manners: Manners,
        board: Board,
        replies: ReplySender,
        receiver: mpsc::UnboundedReceiver<Result<Delivery, Status>>,
        now: Instant,
    }

    impl Probed {
        fn every(interval: Option<Duration>) -> Self {
            let (mut shell, commands, manners, board) = shell();
            let now = Instant::now();
            shell.engine = shell.engine.probed(ScriptedDevice::golden(), interval, now);
            let (replies, receiver) = mpsc::unbounded_channel();
            Self { shell, commands, manners, board, replies, receiver, now }
        }

        fn turn(&mut self, on: TurnOn) -> Turn {
            self.shell.turn(on, self.now)
        }

        fn ask(&self, operations: impl IntoIterator<Item = (u64, Operation)>) {
            let admit = |(session, operation)| Admitted { session, operation, credit: Credit::default() };
            let operations = operations.into_iter().map(admit).collect();
            let (replies, span, read) = (self.replies.clone(), Span::none(), self.now);
            let command = Command::Operations { stream: 1, operations, replies, span, read };
            self.commands.try_send(command).unwrap();
        }

        /// Session, step, and the code of the failure if it is one, of every answer that has come.
        fn answers(&mut self) -> Vec<(u64, u64, Option<ErrorCode>)> {
            let mut all = vec![];
            while let Ok(delivery) = self.receiver.try_recv() {
                let Delivery::Answers(replies) = delivery.unwrap() else { panic!("nobody stops") };
                all.extend(replies.into_iter().map(|Reply { answer, .. }| {
                    let code = match answer.answer {
                        Some(Kind::Failure(failure)) => Some(failure.code()),
                        _ => None,
                    };
                    (answer.session, answer.step, code)
                }));
            }
            all
        }

        /// Takes turns until the device is sound again, each when it is due.
        fn until_sound(&mut self) {
            while self.board.reason().is_some() {
                let Turn::Idle { due } = self.turn(TurnOn::OwnThread) else {
                    panic!("there is nothing to compute");
                };
                let due = due.or(self.board.reason().is_none().then_some(self.now));
                let due = due.expect("a device that is not sound is looked at again");
                self.now = self.now.max(due);
            }
        }
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    fn feed(step: u64) -> Operation {
        let ask = Ask::Logits { rows: Rows::Next, format: v1::RowFormat::F32 };
        Operation::Feed(Feed::new(step, vec![1], ask))
    }

    #[test]
    fn a_device_that_nobody_asks_is_probed_when_it_is_due_and_only_on_the_models_own_thread() {
        let mut probed = Probed::every(Some(INTERVAL));
        let due = probed.now + INTERVAL;
        assert_eq!(probed.turn(TurnOn::OwnThread), Turn::Idle { due: Some(due) });
        probed.now = due;
        assert_eq!(probed.turn(TurnOn::LentThread), Turn::Idle { due: Some(due) });
        assert_eq!(probed.manners.forwards(), 0);
        assert_eq!(probed.turn(TurnOn::OwnThread), Turn::Idle { due: Some(due + INTERVAL) });
        assert_eq!(probed.manners.forwards(), 1);
        assert_eq!(probed.shell.last_forward(), None, "what a probe takes says nothing about sessions");
    }

    #[test]
    fn a_wrong_device_is_out_with_the_reason_and_its_sessions_end() {
        for manner in [
            Manner::NotFinite,
            Manner::Off { position: 1, token: 3, by: 1e-4 },
            Manner::Error,
            Manner::Panic,
            Manner::Mute,
        ] {
            let mut probed = Probed::every(Some(INTERVAL));
            probed.ask([
                (1, Operation::Open(Origin::Start)),
                (2, Operation::Open(Origin::Start)),
                (1, feed(1)),
            ]);
            probed.turn(TurnOn::OwnThread);
            assert_eq!(probed.answers(), [(1, 1, None)]);
            probed.manners.set(manner);
            probed.now += INTERVAL;
            probed.ask([(1, feed(2)), (2, feed(1)), (2, feed(2)), (3, Operation::Open(Origin::Start))]);
            probed.turn(TurnOn::OwnThread);
            let gone = |session, step| (session, step, Some(ErrorCode::Unavailable));
            assert_eq!(probed.answers(), [gone(1, 2), gone(2, 1), gone(2, 2)], "{manner:?}");
            let reason = probed.board.reason().unwrap();
            assert!(reason.contains("golden sequence"), "{reason}");
            probed.ask([
                (3, feed(1)),
                (4, Operation::Open(Origin::Start)),
                (4, Operation::Close { discard: true }),
            ]);
            probed.turn(TurnOn::LentThread);
            assert_eq!(probed.answers(), [gone(3, 1), gone(4, 0)]);
        }
    }

    #[test]
    fn a_device_that_computes_again_is_back_without_its_sessions() {
        let mut probed = Probed::every(None);
        probed.ask([(1, Operation::Open(Origin::Start)), (1, feed(1))]);
        probed.turn(TurnOn::OwnThread);
        probed.manners.set(Manner::NotFinite);
        probed.ask([(1, feed(2))]);
        probed.turn(TurnOn::OwnThread);
        assert_eq!(probed.answers()[1..], [(1, 2, Some(ErrorCode::NotFinite))]);
        assert_eq!(probed.board.reason(), None, "the next turn's probe tells");
        probed.turn(TurnOn::OwnThread);
        assert!(probed.board.reason().is_some());
        probed.manners.set(Manner::Right);
        let before = probed.manners.forwards();
        probed.until_sound();
        assert_eq!(probed.manners.forwards() - before, 2, "it has to pass twice");
        probed.ask([(1, feed(3)), (2, Operation::Open(Origin::Start)), (2, feed(1))]);
        probed.turn(TurnOn::OwnThread);
        assert_eq!(probed.answers(), [(1, 3, Some(ErrorCode::UnknownSession)), (2, 1, None)]);
    }

    #[test]
    fn an_input_that_a_sound_device_can_not_take_fails_its_session_only() {
        let mut probed = Probed::every(None);
        probed.ask([(1, Operation::Open(Origin::Start)), (2, Operation::Open(Origin::Start)), (1, feed(1))]);
        probed.manners.set(Manner::NotFinite);
        probed.turn(TurnOn::OwnThread);
        probed.manners.set(Manner::Right);
        assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
        assert_eq!((probed.manners.forwards(), probed.board.reason()), (2, None));
        probed.ask([(2, feed(1))]);
        probed.turn(TurnOn::OwnThread);
        assert_eq!(probed.answers(), [(1, 1, Some(ErrorCode::NotFinite)), (2, 1, None)]);
    }

    #[test]
    fn callers_mistakes_never_count_against_a_device() {
        let mut probed = Probed::every(None);
        let torn = v1::Snapshot { checksum: 1, ..v1::Snapshot::default() };
        probed.ask([
            (1, feed(1)),
            (2, Operation::Open(Origin::Snapshot(Box::new(torn)))),
            (3, Operation::Open(Origin::Start)),
            (3, feed(9)),
        ]);
        assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
        assert_eq!(probed.answers().len(), 3);
        probed.turn(TurnOn::OwnThread);
        assert_eq!((probed.manners.forwards(), probed.board.reason()), (0, None), "not even a probe");
    }

    #[test]
    fn what_is_found_from_outside_ends_all_sessions_too_and_a_probe_brings_the_device_back() {
        let mut probed = Probed::every(None);
        probed.ask([(1, Operation::Open(Origin::Start))]);
        probed.turn(TurnOn::OwnThread);
        assert!(probed.board.condemn("stuck"));
        probed.ask([(1, feed(1))]);
        probed.turn(TurnOn::LentThread);
        assert_eq!(probed.answers(), [(1, 1, Some(ErrorCode::Unavailable))]);
        assert_eq!(probed.board.reason().as_deref(), Some("stuck"));
        probed.until_sound();
        assert_eq!(probed.manners.forwards(), 2);
    }
}
