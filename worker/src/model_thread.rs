//! Who runs the model. It has a thread of its own, which sleeps while there is nothing to do. Where forwards are quick, two
//! changes of threads cost more than one of them: then whoever has just queued commands takes the turn itself, if nobody
//! else is in one.
//!
//! Knows nothing about what a turn does.

use std::{
    error::Error,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use chorus_model::SpareThreads;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    condition::Board,
    engine::Engine,
    predictor::Predictor,
    shell::{Command, Shell, TakeTurns, Turn, TurnOn},
};

/// Commands that may wait for a turn, which takes what is there before its forward.
const QUEUED_COMMANDS: usize = 256;
/// Forwards of this length are run where commands come in: connections wait for one no longer than for a disk. Nobody helps
/// with them there, so one that may have been helped has to have taken less.
const QUICK: Duration = Duration::from_micros(500);

/// The running thread, or the task in its place.
#[derive(Debug)]
pub(crate) struct ModelThread {
    commands: Commands,
    ended: oneshot::Receiver<()>,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Thread(thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

/// What wakes it.
#[derive(Debug, Clone)]
enum Sleeper {
    Thread(Thread),
    Task(Arc<Notify>),
}

/// How commands get to the model.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    queue: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    sleeper: Sleeper,
}

/// The model is gone, and nothing is computed any more.
#[derive(Debug)]
pub(crate) struct ModelGone;

/// The model, behind the lock of whoever is in a turn; gone when the thread has ended.
struct Model {
    turns: Option<Box<dyn TakeTurns>>,
    /// When the thread wakes by itself.
    wakes: Option<Instant>,
}

struct Shared {
    model: Mutex<Model>,
    /// Whether the last forward was.
    is_quick: AtomicBool,
    /// Goes up when a turn begins and when it ends: odd while one is under way.
    turns: AtomicU64,
    /// Threads that may help with a forward on the model's own.
    spare: usize,
}

impl ModelThread {
    /// Starts the thread, with so many spare threads beside it. What becomes known of the device is published on the board.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(crate) fn spawn<P>(engine: Engine<P>, board: Board, spare: usize) -> io::Result<Self>
    where
        P: Predictor + Send + 'static,
        P::State: Send,
    {
        let (queue, inbox) = mpsc::channel(QUEUED_COMMANDS);
        let (alive, ended) = oneshot::channel();
        let shared = Arc::new(Shared::new(Some(Box::new(Shell::new(engine, inbox, board))), spare));
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("chorus-model".to_owned()).spawn(move || {
            // Dropped when the thread ends, however it ends, and the model before it: streams and commands close.
            let _alive: oneshot::Sender<()> = alive;
            let _end = End(&own);
            let _spare = spare_threads(spare);
            own.run();
        })?;
        let commands = Commands { queue, shared, sleeper: Sleeper::Thread(thread.thread().clone()) };
        Ok(Self { commands, ended, life: Life::Thread(thread) })
    }

    /// Starts a task that does what the thread does, for a runtime where everything has to happen in one order: a
    /// simulation. It holds up its thread for as long as a forward takes.
    pub(crate) fn spawn_task<P>(engine: Engine<P>, board: Board) -> Self
    where
        P: Predictor + Send + 'static,
        P::State: Send,
    {
        let (queue, inbox) = mpsc::channel(QUEUED_COMMANDS);
        let (alive, ended) = oneshot::channel();
        let shared = Arc::new(Shared::new(Some(Box::new(Shell::new(engine, inbox, board))), 0));
        let (own, woken) = (Arc::clone(&shared), Arc::new(Notify::new()));
        let wake = Arc::clone(&woken);
        let task = tokio::spawn(async move {
            let _alive: oneshot::Sender<()> = alive;
            let _end = End(&own);
            own.run_on_task(&woken).await;
        });
        let commands = Commands { queue, shared, sleeper: Sleeper::Task(wake) };
        Self { commands, ended, life: Life::Task(task) }
    }

    pub(crate) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Waits until the thread has ended.
    pub(crate) async fn ended(&mut self) {
        if !self.ended.is_terminated() {
            // An error is what is waited for: the sender is gone.
            let _ = (&mut self.ended).await;
        }
    }

    /// Ends the thread after the forward that it is in, if any, and waits for it, unless that takes longer than `patience`:
    /// a thread whose device is stuck ends with the process.
    pub(crate) async fn stop(mut self, patience: Duration) {
        let stopped = async {
            let _ = self.commands.send(Command::Stop).await;
            self.commands.wake();
            self.ended().await;
        };
        if tokio::time::timeout(patience, stopped).await.is_err() {
            tracing::error!(?patience, "the model's thread does not end");
            return;
        }
        let is_well = match self.life {
            Life::Thread(thread) => {
                let joined = tokio::task::spawn_blocking(move || thread.join()).await;
                matches!(joined, Ok(Ok(())))
            }
            Life::Task(task) => task.await.is_ok(),
        };
        if !is_well {
            tracing::error!("the model's thread panicked");
        }
    }
}

/// So many threads that help this one. It computes without those that the system does not have.
fn spare_threads(count: usize) -> Option<SpareThreads> {
    match SpareThreads::of_this_thread(NonZeroUsize::new(count)?) {
        Ok(spare) => Some(spare),
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, count, "there are no spare threads");
            None
        }
    }
}

impl Commands {
    /// Queues a command. Nothing comes of it before somebody [`Commands::take_turn`]s.
    pub(crate) async fn send(&self, command: Command) -> Result<(), ModelGone> {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.queue.try_send(command) {
            self.wake();
            return self.queue.send(command).await.map_err(|_| ModelGone);
        }
        if self.queue.is_closed() { Err(ModelGone) } else { Ok(()) }
    }

    /// Has the model see to what is queued: here and now if that is quick, else on its thread.
    pub(crate) fn take_turn(&self) {
        if self.take_first_turn() {
            self.wake();
        }
    }

    /// The same, but for what can be computed early afterwards: whether there is any, for which the caller takes another turn,
    /// and yet another.
    pub(crate) fn take_first_turn(&self) -> bool {
        if !self.shared.is_quick.load(Ordering::Relaxed) {
            self.wake();
            return false;
        }
        let mut is_early_work_left = false;
        // Whatever happens in a turn, the thread looks after what is left.
        let wake = WakeIfPanicking(&self.sleeper);
        match self.shared.model.try_lock() {
            Ok(mut model) => {
                let before = model.wakes;
                let turn = self.shared.turn(&mut model, TurnOn::LentThread);
                let sleeps_on = match (turn, before) {
                    (Turn::Idle { due: None, .. }, _) => true,
                    (Turn::Idle { due: Some(due), .. }, Some(before)) => before <= due,
                    _ => false,
                };
                drop(model);
                is_early_work_left = matches!(turn, Turn::Idle { has_early_work: true, .. });
                if !sleeps_on {
                    self.wake();
                }
            }
            // Who is in a turn may have looked at the queue already.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => self.wake(),
        }
        drop(wake);
        is_early_work_left
    }

    /// Resolves when the model is gone.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Has the model's own thread take a turn.
    pub(crate) fn wake(&self) {
        self.sleeper.wake();
    }

    /// The turn that is under way, if any: another number each time.
    pub(crate) fn turn_under_way(&self) -> Option<u64> {
        let turns = self.shared.turns.load(Ordering::Relaxed);
        (turns % 2 == 1).then_some(turns)
    }

    /// A queue of so many commands that no model looks at.
    #[cfg(test)]
    pub(crate) fn unattended(queued: usize) -> (Self, mpsc::Receiver<Command>) {
        let (queue, inbox) = mpsc::channel(queued);
        let shared = Arc::new(Shared::new(None, 0));
        (Self { queue, shared, sleeper: Sleeper::Thread(thread::current()) }, inbox)
    }
}

impl Sleeper {
    fn wake(&self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            Self::Task(notify) => notify.notify_one(),
        }
    }
}

impl Shared {
    fn new(turns: Option<Box<dyn TakeTurns>>, spare: usize) -> Self {
        let model = Mutex::new(Model { turns, wakes: None });
        Self { model, is_quick: AtomicBool::new(false), turns: AtomicU64::new(0), spare }
    }

    /// The task's life.
    async fn run_on_task(&self, woken: &Notify) {
        loop {
            let turn = match self.model.lock() {
                Ok(mut model) => self.turn(&mut model, TurnOn::OwnThread),
                Err(_) => return,
            };
            match turn {
                Turn::Over => return,
                // Whoever else is ready may add to the next one.
                Turn::More | Turn::Idle { has_early_work: true, .. } => tokio::task::yield_now().await,
                Turn::Idle { due: None, .. } => woken.notified().await,
                Turn::Idle { due: Some(due), .. } => {
                    let _ = tokio::time::timeout_at(due, woken.notified()).await;
                }
            }
        }
    }

    /// The thread's life.
    fn run(&self) {
        loop {
            let Ok(mut model) = self.model.lock() else {
                // Somebody panicked in a turn: what the sessions are in is not known any more.
                return;
            };
            match self.turn(&mut model, TurnOn::OwnThread) {
                Turn::More => {}
                Turn::Over => return,
                Turn::Idle { has_early_work: true, .. } => {
                    drop(model);
                    // Somebody else's answer may be awaited now.
                    thread::yield_now();
                }
                Turn::Idle { due, .. } => {
                    model.wakes = due;
                    drop(model);
                    let sleep = due.map(|due| due.saturating_duration_since(Instant::now()));
                    match sleep {
                        Some(sleep) => thread::park_timeout(sleep),
                        None => thread::park(),
                    }
                }
            }
        }
    }

    fn turn(&self, model: &mut MutexGuard<'_, Model>, on: TurnOn) -> Turn {
        let Some(turns) = model.turns.as_mut() else {
            return Turn::Over;
        };
        self.turns.fetch_add(1, Ordering::Relaxed);
        let turn = turns.turn(on, Instant::now());
        self.turns.fetch_add(1, Ordering::Relaxed);
        let threads = if on == TurnOn::OwnThread { 1 + self.spare } else { 1 };
        let is_quick = turns
            .last_forward()
            .is_some_and(|took| took.as_secs_f64() * (threads as f64) < QUICK.as_secs_f64());
        self.is_quick.store(is_quick, Ordering::Relaxed);
        turn
    }
}

/// Takes the model away when the thread ends.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let model = self.0.model.lock().unwrap_or_else(PoisonError::into_inner).turns.take();
        // Not under the lock, and not where it may panic once more while it is taken down.
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(model)));
        if dropped.is_err() {
            tracing::error!("the model panicked as it was taken down");
        }
    }
}

/// Wakes the thread where a turn that was taken elsewhere panics.
struct WakeIfPanicking<'a>(&'a Sleeper);

impl Drop for WakeIfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.wake();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("is_quick", &self.is_quick).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
