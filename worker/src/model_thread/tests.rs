//! Who takes turns, on which thread, and what is noticed when one does not end well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use tracing::Span;

use super::*;
use crate::{
    batcher::BatchLimits,
    credit::Credit,
    operation::{Ask, Feed, Operation, Origin},
    predictor::{Prediction, PredictorError, Restored, Row},
    scripted_device::{ScriptedDevice, Told},
    shell::{Admitted, ReplySender},
};

const PATIENCE: Duration = Duration::from_secs(60);

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

    fn snapshot(&self, _: &Bomb) -> Result<Bytes, PredictorError> {
        Ok(Bytes::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<Restored<Bomb>, PredictorError> {
        Ok(Ok(Bomb))
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

    fn snapshot(&self, _: &Self::State) -> Result<Bytes, PredictorError> {
        Ok(Bytes::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<Restored<Self::State>, PredictorError> {
        self.fresh_state().map(Ok)
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
    let engine = Engine::new(Watched { state: Some(state) }, String::new(), 1, ttl, BatchLimits::default());
    let thread = ModelThread::spawn(engine, Board::default(), 0).unwrap();
    let (replies, _receiver) = mpsc::unbounded_channel();
    let operations =
        vec![Admitted { session: 1, operation: Operation::Open(Origin::Start), credit: Credit::default() }];
    let command =
        Command::Operations { stream: 1, operations, replies, span: Span::none(), read: Instant::now() };
    let sent = Instant::now();
    thread.commands().send(command).await.unwrap();
    thread.commands().take_turn();
    let dropped = tokio::time::timeout(Duration::from_secs(10), dropped).await;
    assert!(dropped.expect("the state is held for ever").is_err());
    assert!(sent.elapsed() > ttl, "not before its time");
    thread.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_thread_that_dies_is_noticed_and_closes_its_streams() {
    let engine = Engine::new(Broken, String::new(), 1, Duration::from_secs(1), BatchLimits::default());
    let mut thread = ModelThread::spawn(engine, Board::default(), 0).unwrap();
    let (replies, mut receiver) = mpsc::unbounded_channel();
    let feed = Operation::Feed(Feed::new(1, vec![0], Ask::Nothing));
    let operations = [Operation::Open(Origin::Start), feed, Operation::Close { discard: false }]
        .map(|operation| Admitted { session: 1, operation, credit: Credit::default() })
        .into();
    let command =
        Command::Operations { stream: 1, operations, replies, span: Span::none(), read: Instant::now() };
    thread.commands().send(command).await.unwrap();
    thread.commands().take_turn();
    thread.ended().await;
    assert!(receiver.recv().await.is_none());
    thread.commands().closed().await;
    let gone = thread.commands().send(Command::EndStream { stream: 1 }).await;
    assert!(matches!(gone, Err(ModelGone)));
    thread.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_turn_that_panics_elsewhere_ends_the_thread_and_its_streams_too() {
    let engine = Engine::new(Broken, String::new(), 1, Duration::from_secs(60), BatchLimits::default());
    let mut thread = ModelThread::spawn(engine, Board::default(), 0).unwrap();
    let commands = thread.commands();
    let (replies, mut receiver) = mpsc::unbounded_channel();
    let command = |operations: Vec<Operation>| {
        let admitted = |operation| Admitted { session: 1, operation, credit: Credit::default() };
        let operations = operations.into_iter().map(admitted).collect();
        Command::Operations {
            stream: 1,
            operations,
            replies: replies.clone(),
            span: Span::none(),
            read: Instant::now(),
        }
    };
    let feed = Operation::Feed(Feed::new(1, vec![0], Ask::Nothing));
    commands.send(command(vec![Operation::Open(Origin::Start), feed])).await.unwrap();
    commands.take_turn();
    receiver.recv().await.unwrap().unwrap();
    drop(commands.shared.model.lock().unwrap());
    commands.shared.is_quick.store(true, Ordering::Relaxed);
    commands.send(command(vec![Operation::Close { discard: false }])).await.unwrap();
    drop(replies);
    // Here, unless the thread has just woken once more.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands.take_turn()));
    let ended = tokio::time::timeout(Duration::from_secs(10), thread.ended()).await;
    assert!(ended.is_ok(), "the thread sleeps on beside a model that is gone");
    assert!(receiver.recv().await.is_none());
    assert!(matches!(commands.send(Command::EndStream { stream: 1 }).await, Err(ModelGone)));
    thread.stop(PATIENCE).await;
}

/// Says on which thread each forward ran, and takes its time.
struct Located {
    ran: std::sync::mpsc::Sender<thread::ThreadId>,
    takes: Duration,
}

impl Predictor for Located {
    type State = ();

    fn vocabulary_size(&self) -> usize {
        1
    }

    fn fresh_state(&mut self) -> Result<(), PredictorError> {
        Ok(())
    }

    fn snapshot(&self, (): &()) -> Result<Bytes, PredictorError> {
        Ok(Bytes::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<Restored<()>, PredictorError> {
        Ok(Ok(()))
    }

    fn forward(
        &mut self,
        _: &mut [Row<'_, ()>],
        _: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        thread::sleep(self.takes);
        Ok(self.ran.send(thread::current().id())?)
    }
}

/// A step of the one session, which is opened before its first.
fn step_of_one_session(step: u64, replies: ReplySender) -> Command {
    let feed = Operation::Feed(Feed::new(step, vec![0], Ask::Nothing));
    let open = (step == 1).then_some(Operation::Open(Origin::Start));
    let operations = open.into_iter().chain([feed]);
    let operations =
        operations.map(|operation| Admitted { session: 1, operation, credit: Credit::default() });
    let (operations, span) = (operations.collect(), Span::none());
    Command::Operations { stream: 1, operations, replies, span, read: Instant::now() }
}

/// One forward after the other, each asked for from this thread; on which one each ran.
async fn forwards(takes: Duration, count: u64, spare: usize) -> Vec<thread::ThreadId> {
    let (ran, places) = std::sync::mpsc::channel();
    let engine = Engine::new(
        Located { ran, takes },
        String::new(),
        1,
        Duration::from_secs(60),
        BatchLimits::default(),
    );
    let thread = ModelThread::spawn(engine, Board::default(), spare).unwrap();
    let commands = thread.commands();
    let (replies, mut answered) = mpsc::unbounded_channel();
    for step in 1..=count {
        commands.send(step_of_one_session(step, replies.clone())).await.unwrap();
        commands.take_turn();
        answered.recv().await.unwrap().unwrap();
        // Until whoever answered is out of its turn.
        drop(commands.shared.model.lock().unwrap());
    }
    thread.stop(PATIENCE).await;
    places.into_iter().collect()
}

#[tokio::test]
async fn quick_forwards_run_where_they_are_asked_for_and_long_ones_on_the_models_thread() {
    let here = thread::current().id();
    let long = forwards(2 * QUICK, 5, 0).await;
    assert!(long.len() == 5 && !long.contains(&here), "{long:?}, here is {here:?}");
    // A thread that wakes in vain may be in a turn once in a while.
    let quick = forwards(Duration::ZERO, 100, 0).await;
    assert_eq!(quick.len(), 100);
    assert!(quick.contains(&here), "none of them");
    assert_ne!(quick[0], here, "of the first one it is not known that it is quick");
    // Here nobody would help with them.
    let quick_with_help = forwards(3 * QUICK / 4, 5, 1).await;
    assert!(quick_with_help.len() == 5 && !quick_with_help.contains(&here), "{quick_with_help:?}");
}

#[tokio::test]
async fn what_can_be_computed_early_is_left_to_whoever_took_the_turn() {
    let (device, manners) = ScriptedDevice::new();
    let ttl = Duration::from_secs(60);
    let engine = Engine::new(device, String::new(), 1, ttl, BatchLimits::default());
    let thread = ModelThread::spawn(engine, Board::default(), 0).unwrap();
    let commands = thread.commands();
    let (replies, mut answered) = mpsc::unbounded_channel();
    manners.set_early(2);
    let mut left_here = 0;
    for step in 1..=100 {
        commands.send(step_of_one_session(step, replies.clone())).await.unwrap();
        // However long a busy machine has taken for the one before, this one is taken here unless the thread is in a turn.
        drop(commands.shared.model.lock().unwrap());
        commands.shared.is_quick.store(true, Ordering::Relaxed);
        // Who does not go on leaves it to the model's own thread: towards the end, since that is awake then.
        let is_left = if step <= 50 {
            commands.take_first_turn()
        } else {
            commands.take_turn();
            false
        };
        answered.recv().await.unwrap().unwrap();
        if is_left {
            left_here += 1;
            while commands.take_first_turn() {}
        }
        // On the model's own thread it is computed without being asked for.
        manners.wait_for_early();
    }
    assert!(left_here > 0, "all forwards ran on the model's thread");
    let early = manners.told().into_iter().filter(|told| *told == Told::Early).count();
    assert_eq!(early, 200);
    thread.stop(PATIENCE).await;
}
