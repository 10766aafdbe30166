//! The one thread that owns the model. Commands reach it over a bounded channel; it blocks for the first one, takes
//! whatever else is there, and runs one forward: natural batching, without timers. While it waits it wakes only for the
//! engine's next expiry. Knows nothing about gRPC frames.

use std::{collections::HashMap, io, ops::ControlFlow, thread, time::Instant};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::timeout_at,
};
use tonic::Status;
use tracing::Span;

use crate::{
    credit::Credit,
    engine::{Engine, Reply},
    operation::{Operation, SessionKey},
    predictor::Predictor,
};

/// Commands that may wait for the model's thread, which takes what is there before every forward.
const QUEUED_COMMANDS: usize = 256;

/// Operations that are taken in before the next forward, or a command's worth more. However fast they come, nobody's
/// answer waits for longer than these and one forward take.
const ROUND_OPERATIONS: usize = 4096;

/// What a stream is sent: answers that became ready together, or why it ends. The channel has no bound of its own: a
/// stream's [`Credit`] bounds what can be in it.
pub(crate) type ReplySender = mpsc::UnboundedSender<Result<Vec<Reply>, Status>>;

/// What the model's thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Operations of one stream, in order.
    Operations { stream: u64, operations: Vec<Admitted>, replies: ReplySender, span: Span },
    /// A stream is over: drop its sessions and its reply channel.
    EndStream { stream: u64 },
    /// End the thread.
    Stop,
}

/// An operation with the credit that it holds.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) session: u64,
    pub(crate) operation: Operation,
    pub(crate) credit: Credit,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct ModelThread {
    commands: mpsc::Sender<Command>,
    ended: oneshot::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

struct Shell<P: Predictor> {
    engine: Engine<P>,
    /// The thread's own timer, which does not depend on the server's runtime; nothing is spawned on it.
    timer: Runtime,
    streams: HashMap<u64, ReplySender>,
    /// Spans of the commands that asked for the next batch.
    asked: Vec<Span>,
    replies: Vec<Reply>,
}

impl ModelThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(crate) fn spawn<P>(engine: Engine<P>) -> io::Result<Self>
    where
        P: Predictor + Send + 'static,
        P::State: Send,
    {
        let (commands, inbox) = mpsc::channel(QUEUED_COMMANDS);
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("chorus-model".to_owned()).spawn(move || {
            // Dropped when the thread ends, however it ends.
            let _alive: oneshot::Sender<()> = alive;
            match Builder::new_current_thread().enable_time().build() {
                Ok(timer) => Shell::new(engine, timer).run(inbox),
                Err(error) => tracing::error!(%error, "the model's thread has no timer"),
            }
        })?;
        Ok(Self { commands, ended, thread })
    }

    pub(crate) fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Waits until the thread has ended.
    pub(crate) async fn ended(&mut self) {
        // An error is what is waited for: the sender is gone.
        let _ = (&mut self.ended).await;
    }

    /// Ends the thread after the forward that it is in, if any, and waits for it.
    pub(crate) async fn stop(self) {
        let _ = self.commands.send(Command::Stop).await;
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the model's thread panicked");
        }
    }
}

impl<P: Predictor> Shell<P>
where
    P::State: Send,
{
    fn new(engine: Engine<P>, timer: Runtime) -> Self {
        Self { engine, timer, streams: HashMap::new(), asked: Vec::new(), replies: Vec::new() }
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            if !self.engine.has_work() {
                match self.wait(&mut inbox) {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.handle(command),
                }
            }
            if self.take_round(&mut inbox).is_break() {
                return;
            }
            self.deliver();
            if self.engine.has_work() {
                let span = tracing::debug_span!("batch");
                self.asked.drain(..).for_each(|asked| {
                    span.follows_from(asked);
                });
                let begin = Instant::now();
                let tokens = span.in_scope(|| self.engine.run_batch(begin, &mut self.replies));
                self.engine.note_pace(tokens, begin.elapsed());
                self.deliver();
            }
        }
    }

    /// Takes what is queued, within a round; breaks where the thread has to end.
    fn take_round(&mut self, inbox: &mut mpsc::Receiver<Command>) -> ControlFlow<()> {
        let mut left = ROUND_OPERATIONS;
        while left > 0
            && let Ok(command) = inbox.try_recv()
        {
            match &command {
                Command::Stop => return ControlFlow::Break(()),
                Command::Operations { operations, .. } => left = left.saturating_sub(operations.len()),
                Command::EndStream { .. } => left -= 1,
            }
            self.handle(command);
        }
        ControlFlow::Continue(())
    }

    /// Blocks for the next command; meanwhile sessions expire when their time comes.
    fn wait(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Command> {
        while let Some(expiry) = self.engine.next_expiry() {
            match self.timer.block_on(async { timeout_at(expiry.into(), inbox.recv()).await }) {
                Ok(command) => return command,
                Err(_) => self.engine.expire(Instant::now()),
            }
        }
        inbox.blocking_recv()
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
            Command::EndStream { stream } => {
                // What is ready is still delivered, then the stream's reply channel closes.
                self.deliver();
                self.engine.end_stream(stream);
                self.streams.remove(&stream);
            }
            Command::Stop => {}
        }
    }

    /// Sends every stream the answers that are ready for it, together.
    fn deliver(&mut self) {
        let mut by_stream: HashMap<u64, Vec<Reply>> = HashMap::new();
        for reply in self.replies.drain(..) {
            by_stream.entry(reply.stream).or_default().push(reply);
        }
        for (stream, replies) in by_stream {
            if let Some(sender) = self.streams.get(&stream) {
                // A stream that is gone needs no answers; its end is on its way to us.
                let _ = sender.send(Ok(replies));
            }
        }
        if !self.engine.has_work() {
            self.asked.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        batcher::BatchLimits,
        operation::{Ask, Feed},
        predictor::{Prediction, PredictorError, Row},
    };

    /// Breaks where the engine does not guard against it: when a session's state is dropped.
    struct Broken;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("scripted panic");
        }
    }

    impl Predictor for Broken {
        type State = Bomb;

        fn vocabulary_size(&self) -> usize {
            1
        }

        fn fresh_state(&mut self) -> Result<Bomb, PredictorError> {
            Ok(Bomb)
        }

        fn forward(
            &mut self,
            _: &mut [Row<'_, Bomb>],
            _: &mut dyn FnMut(Prediction<'_>),
        ) -> Result<(), PredictorError> {
            Ok(())
        }
    }

    /// Its one session's state tells when it is dropped.
    struct Watched {
        state: Option<oneshot::Sender<()>>,
    }

    impl Predictor for Watched {
        type State = oneshot::Sender<()>;

        fn vocabulary_size(&self) -> usize {
            1
        }

        fn fresh_state(&mut self) -> Result<Self::State, PredictorError> {
            self.state.take().ok_or_else(|| "there is one session".into())
        }

        fn forward(
            &mut self,
            _: &mut [Row<'_, Self::State>],
            _: &mut dyn FnMut(Prediction<'_>),
        ) -> Result<(), PredictorError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_session_expires_although_no_command_comes() {
        let (state, dropped) = oneshot::channel();
        let ttl = Duration::from_millis(20);
        let engine = Engine::new(Watched { state: Some(state) }, 1, ttl, BatchLimits::default());
        let thread = ModelThread::spawn(engine).unwrap();
        let (replies, _receiver) = mpsc::unbounded_channel();
        let operations = vec![Admitted { session: 1, operation: Operation::Open, credit: Credit::default() }];
        let command = Command::Operations { stream: 1, operations, replies, span: Span::none() };
        let sent = Instant::now();
        thread.commands().send(command).await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_secs(10), dropped).await;
        assert!(dropped.expect("the state is held for ever").is_err());
        assert!(sent.elapsed() > ttl, "not before its time");
        thread.stop().await;
    }

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

        fn forward(
            &mut self,
            _: &mut [Row<'_, ()>],
            _: &mut dyn FnMut(Prediction<'_>),
        ) -> Result<(), PredictorError> {
            Ok(())
        }
    }

    /// A stream of operations that need no model, faster than they can be taken, does not hold up a feed.
    #[test]
    fn a_round_ends_however_many_operations_wait() {
        let engine = Engine::new(Quick, 8, Duration::from_secs(60), BatchLimits::default());
        let timer = Builder::new_current_thread().enable_time().build().unwrap();
        let mut shell = Shell::new(engine, timer);
        let (commands, mut inbox) = mpsc::channel(QUEUED_COMMANDS);
        let (replies, mut receiver) = mpsc::unbounded_channel();
        let admitted = |operation| Admitted { session: 1, operation, credit: Credit::default() };
        let command = |operations| Command::Operations {
            stream: 1,
            operations,
            replies: replies.clone(),
            span: Span::none(),
        };
        let flood = || (0..1000).map(|_| admitted(Operation::Close { discard: false })).collect();
        let feed = Operation::Feed(Feed { step: 1, tokens: vec![0], ask: Ask::Nothing });
        commands.try_send(command(vec![admitted(Operation::Open), admitted(feed)])).unwrap();
        (0..100).for_each(|_| commands.try_send(command(flood())).unwrap());
        assert!(shell.take_round(&mut inbox).is_continue());
        assert!(inbox.len() >= 90, "most of the flood waits for the next rounds");
        assert!(shell.engine.has_work());
        shell.engine.run_batch(Instant::now(), &mut shell.replies);
        shell.deliver();
        assert_eq!(receiver.try_recv().unwrap().unwrap().len(), 1, "the feed is answered");
    }

    #[tokio::test]
    async fn a_thread_that_dies_is_noticed_and_closes_its_streams() {
        let engine = Engine::new(Broken, 1, Duration::from_secs(1), BatchLimits::default());
        let mut thread = ModelThread::spawn(engine).unwrap();
        let (replies, mut receiver) = mpsc::unbounded_channel();
        let feed = Operation::Feed(Feed { step: 1, tokens: vec![0], ask: Ask::Nothing });
        let operations = [Operation::Open, feed, Operation::Close { discard: false }]
            .map(|operation| Admitted { session: 1, operation, credit: Credit::default() })
            .into();
        let command = Command::Operations { stream: 1, operations, replies, span: Span::none() };
        thread.commands().send(command).await.unwrap();
        thread.ended().await;
        assert!(receiver.recv().await.is_none());
        assert!(thread.commands().is_closed());
        thread.stop().await;
    }
}
