//! One turn of the model: take what is queued, run one forward over it, deliver. Natural batching, without timers. A device
//! that computes by itself has its next batch before what it has found in the last one is taken in and delivered.
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
    engine::{Begun, Engine, Reply},
    operation::{Operation, SessionKey},
    predictor::Predictor,
};

/// Operations that are taken in before the next forward, or a command's worth more. However fast they come, nobody's
/// answer waits for longer than these and one forward take.
const ROUND_OPERATIONS: usize = 4096;

/// A look at a device that is done takes less.
const WAITED: Duration = Duration::from_micros(20);

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
    /// Nobody waits until a command comes, or until sessions expire or a probe is due. Where something can be computed early,
    /// more turns do so, each a part of it.
    Idle { due: Option<Instant>, has_early_work: bool },
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
    /// Takes in what is queued and runs one forward, if there is anything to compute; where nothing was queued either, it computes a
    /// part of the next one early. A probe that is due runs on the model's own thread only: it is many tokens long, and where
    /// it hangs, connections have to go on.
    fn turn(&mut self, on: TurnOn, now: Instant) -> Turn;

    /// How long the last forward took, with what was computed of it early; none before the first.
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
    /// What was computed early for the next one has taken so long.
    early: Duration,
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
            early: Duration::ZERO,
            is_over: false,
        }
    }

    /// Takes what is queued, within a round, and says whether that is anything; breaks where this turn is the last.
    fn take_round(&mut self, now: Instant) -> ControlFlow<(), bool> {
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
        ControlFlow::Continue(left < ROUND_OPERATIONS)
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

    /// Begins a forward, or runs one. While a device is at it, what it has computed before is taken in and delivered; its own
    /// answers are when there is nothing else to begin with, or the thread is not ours. Where something went wrong, nothing
    /// happens before a probe.
    fn forward(&mut self, on: TurnOn, now: Instant) {
        if self.engine.goes_on() {
            self.collect(now);
        }
        if self.engine.is_suspected() {
            return;
        }
        let start = Instant::now();
        match self.begin(now) {
            Begun::Nothing => self.collect(now),
            Begun::Blocked => {
                self.collect(now);
                if !self.engine.is_suspected() {
                    self.forward(on, now);
                }
            }
            Begun::Failed => {
                self.engine.note_forward(start.elapsed());
                self.last_forward = Some(start.elapsed());
            }
            Begun::Computed { tokens } => {
                let took = start.elapsed();
                self.engine.note_forward(took);
                // The next one may have nothing that was computed early.
                let took = took + std::mem::take(&mut self.early);
                self.engine.note_pace(tokens, took);
                self.last_forward = Some(took);
            }
            Begun::UnderWay { tokens } => {
                self.beside_device(tokens, start, now);
                let is_next = self.engine.has_work() || !self.inbox.is_empty();
                if (on == TurnOn::LentThread || !is_next) && !self.engine.is_suspected() {
                    self.collect(now);
                }
                self.last_forward = Some(start.elapsed());
            }
        }
    }

    /// Takes in and delivers what was computed before, while the device is at so many tokens since the start, and waits for it.
    fn beside_device(&mut self, tokens: usize, start: Instant, now: Instant) {
        if self.engine.under_way() > 1 {
            self.engine.collect(now, &mut self.replies);
            self.deliver();
        }
        let waits = Instant::now();
        self.engine.wait();
        self.engine.note_forward(start.elapsed());
        // Where it has waited for us, nobody knows how long it took.
        if waits.elapsed() > WAITED {
            self.engine.note_pace(tokens, start.elapsed());
        }
    }

    fn begin(&mut self, now: Instant) -> Begun {
        let span = tracing::debug_span!("batch");
        let begun = span.in_scope(|| self.engine.begin(now, &mut self.replies));
        if let Begun::Computed { .. } | Begun::UnderWay { .. } = begun {
            self.asked.drain(..).for_each(|asked| {
                span.follows_from(asked);
            });
        }
        begun
    }

    /// Takes in and delivers what is under way.
    fn collect(&mut self, now: Instant) {
        self.engine.collect_all(now, &mut self.replies);
        self.deliver();
    }

    /// Runs a probe. How long it took says nothing about forwards for sessions.
    fn probe(&mut self, now: Instant) {
        if !self.engine.is_suspected() {
            self.collect(now);
        }
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
        if self.is_over {
            return Turn::Over;
        }
        let ControlFlow::Continue(is_told) = self.take_round(now) else {
            // What is computed is answered.
            self.collect(now);
            self.is_over = true;
            return Turn::Over;
        };
        self.heed_board(now);
        self.deliver();
        if on == TurnOn::OwnThread && self.engine.is_probe_due(now) {
            self.probe(now);
            self.deliver();
        }
        if self.engine.has_work() || self.engine.under_way() > 0 {
            self.forward(on, now);
            self.heed_board(now);
            self.deliver();
        } else {
            self.engine.expire(now);
            self.asked.clear();
            // What was answered without the model has to get out first.
            if !is_told {
                self.early += self.engine.compute_early();
            }
        }
        if self.engine.has_work() || self.engine.under_way() > 0 || !self.inbox.is_empty() {
            return Turn::More;
        }
        Turn::Idle { due: self.engine.next_due(), has_early_work: self.engine.has_early_work() }
    }

    fn last_forward(&self) -> Option<Duration> {
        self.last_forward
    }
}

#[cfg(test)]
mod tests;
