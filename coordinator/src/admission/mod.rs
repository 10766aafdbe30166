//! Admission: which requests run, which wait, which are turned away.
//!
//! The pure core decides: [`line`] (room, order of leaving, who is displaced), [`fair`] (in which order those that wait are
//! served), [`pace`] (when to come again). [`Admission`] is the shell around it: tasks wait here for what it decides. Knows
//! nothing about what requests ask for.

mod caller;
mod counted;
mod fair;
mod line;
mod pace;
mod refusal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) use caller::Caller;
pub(crate) use refusal::{no_room, shutting_down};

use crate::config::Limits;
use counted::Counted;
use fair::Ticket;
use line::{Full, Line, Room, Standing};
use refusal::Refusal;

/// Admits requests.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    draining: CancellationToken,
    books: Mutex<Books>,
    counted: Counted,
    /// Told whenever nothing is in progress.
    idle: Notify,
}

#[derive(Debug)]
struct Books {
    line: Line<Caller>,
    /// How those in the line hear what became of them.
    words: HashMap<Ticket, oneshot::Sender<Word>>,
}

/// What becomes of a request in the line.
#[derive(Debug, Clone, Copy)]
enum Word {
    Admitted,
    Displaced,
}

/// A request that has arrived. Dropped, it leaves the line.
pub(crate) struct Visitor {
    place: Place,
    word: oneshot::Receiver<Word>,
    arrived: Instant,
}

/// A request's place in the line, and later among those in progress; dropping it makes room for another.
pub(crate) struct Place {
    admission: Arc<Admission>,
    ticket: Ticket,
}

impl Admission {
    /// Nobody is admitted any more once `draining` is cancelled.
    pub(crate) fn new(limits: &Limits, draining: CancellationToken) -> Arc<Self> {
        let room = Room {
            places: limits.max_sessions as usize,
            tokens: limits.max_tokens_in_progress.into(),
            waiting: limits.max_waiting as usize,
        };
        Arc::new(Self {
            limits: limits.clone(),
            draining,
            books: Mutex::new(Books { line: Line::new(room), words: HashMap::new() }),
            counted: Counted::new(),
            idle: Notify::new(),
        })
    }

    /// A request comes. What is refused here has cost nothing but its reading from the network.
    pub(crate) fn arrive(self: &Arc<Self>, caller: Caller) -> Result<Visitor, Status> {
        if self.draining.is_cancelled() {
            return Err(self.refuse(Refusal::Draining));
        }
        let arrived = Instant::now();
        let (sender, word) = oneshot::channel();
        let arrival = self.changing(|books| {
            let arrival = books.line.arrive(caller, arrived.into_std())?;
            if let Some(displaced) = arrival.displaced {
                books.tell(displaced, Word::Displaced);
            }
            books.words.insert(arrival.ticket, sender);
            Ok(arrival)
        });
        match arrival {
            Ok(arrival) => {
                let place = Place { admission: Arc::clone(self), ticket: arrival.ticket };
                Ok(Visitor { place, word, arrived })
            }
            Err(Full) => Err(self.refuse(Refusal::Full)),
        }
    }

    /// Requests in progress and in the line, and what the first cost.
    fn standing(&self) -> Standing {
        self.books().line.standing()
    }

    /// Requests in progress.
    pub(crate) fn in_progress(&self) -> u32 {
        u32::try_from(self.standing().running).unwrap_or(u32::MAX)
    }

    /// Requests in the line.
    pub(crate) fn waiting(&self) -> u32 {
        u32::try_from(self.standing().waiting).unwrap_or(u32::MAX)
    }

    /// What those in progress cost.
    pub(crate) fn tokens_in_progress(&self) -> u64 {
        self.standing().tokens
    }

    /// Resolves when no request is in progress or in the line.
    pub(crate) async fn idle(&self) {
        loop {
            // Made before looking, so that no word is missed.
            let told = self.idle.notified();
            if self.standing().is_idle() {
                return;
            }
            told.await;
        }
    }

    fn refuse(&self, refusal: Refusal) -> Status {
        self.counted.refused(refusal);
        refusal.status(&self.limits, self.books().line.come_again_after())
    }

    /// Changes the books, and admits whom there is room for then.
    fn changing<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let mut books = self.books();
        let changed = change(&mut books);
        let now = Instant::now().into_std();
        while let Some(ticket) = books.line.admit(now) {
            books.tell(ticket, Word::Admitted);
        }
        let standing = books.line.standing();
        self.counted.standing(standing);
        drop(books);
        if standing.is_idle() {
            self.idle.notify_waiters();
        }
        changed
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }
}

impl Books {
    fn tell(&mut self, ticket: Ticket, word: Word) {
        if let Some(sender) = self.words.remove(&ticket) {
            // One that has hung up leaves by itself.
            let _ = sender.send(word);
        }
    }
}

impl Visitor {
    /// Checks the request. It may be displaced while that goes on.
    pub(crate) async fn checked<T>(
        &mut self,
        check: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            biased;
            checked = check => checked,
            _displaced = &mut self.word => Err(self.place.admission.refuse(Refusal::Displaced)),
        }
    }

    /// Waits until it is admitted, at a cost of so many tokens. Dropped, it leaves the line at once.
    pub(crate) async fn enter(self, cost: u64) -> Result<Place, Status> {
        let Self { place, word, arrived } = self;
        let admission = Arc::clone(&place.admission);
        admission.changing(|books| books.line.enter(place.ticket, cost, Instant::now().into_std()));
        let patience = Duration::from_millis(admission.limits.max_wait_ms.into());
        let refusal = tokio::select! {
            // Who is admitted is admitted, even in the last moment.
            biased;
            word = word => match word {
                Ok(Word::Admitted) => {
                    admission.counted.admitted(arrived.elapsed());
                    return Ok(place);
                }
                // A word that is lost can only have been this one.
                Ok(Word::Displaced) | Err(_) => Refusal::Displaced,
            },
            () = admission.draining.cancelled() => Refusal::Draining,
            () = tokio::time::sleep_until(arrived + patience) => Refusal::WaitedTooLong,
        };
        // Not in the line any more when its caller comes again.
        drop(place);
        Err(admission.refuse(refusal))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.changing(|books| {
            books.words.remove(&self.ticket);
            books.line.leave(self.ticket, Instant::now().into_std());
        });
    }
}

#[cfg(test)]
mod tests;
