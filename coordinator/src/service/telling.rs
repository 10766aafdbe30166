//! How the tokens of a generation are told: each while the members are at work on what follows it, since they are what everybody
//! waits for.
//!
//! Knows nothing about how tokens are chosen, or in how many messages they leave.

use std::pin::{Pin, pin};
use std::task::Poll;

use chorus_proto::v1::{GeneratedToken, Participation};
use futures::poll;
use tokio::task::yield_now;
use tonic::Status;

/// Takes the tokens of a generation as they are chosen.
pub(super) trait Listener {
    /// Whether a token goes further than into memory, so that it is worth while to do something else first.
    const TAKES_TIME: bool = true;

    /// One more token.
    ///
    /// # Errors
    /// Nobody wants more of them.
    async fn token(&mut self, chosen: Chosen) -> Result<(), Status>;
}

/// A token that was chosen, as it is told.
pub(super) struct Chosen {
    pub(super) token: GeneratedToken,
    /// What it makes certain.
    pub(super) text: String,
    /// Who took part in choosing it.
    pub(super) participation: Participation,
}

/// What the next step comes to; the token that it follows is told meanwhile. The step's questions go out first, and those of
/// all other generations whose answers came with these: the members are what everybody waits for.
///
/// # Errors
/// The listener does not want more.
pub(super) async fn tell_meanwhile<L: Listener, T>(
    untold: Option<Chosen>,
    listener: &mut L,
    mut next: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Status> {
    let Some(chosen) = untold else {
        return Ok(next.await);
    };
    if !L::TAKES_TIME {
        listener.token(chosen).await?;
        return Ok(next.await);
    }
    let mut begun = poll!(&mut next);
    yield_now().await;
    let mut telling = pin!(listener.token(chosen));
    tokio::select! {
        biased;
        told = &mut telling => told?,
        // Who listens slowly does not keep a step from going on.
        over = &mut next, if begun.is_pending() => {
            begun = Poll::Ready(over);
            telling.await?;
        }
    }
    match begun {
        Poll::Ready(next) => Ok(next),
        Poll::Pending => Ok(next.await),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    /// What happened, in order.
    type Log = RefCell<Vec<&'static str>>;

    /// Takes as long as it says for a token, and may want no more of them.
    struct Slow<'a>(&'a Log, Duration, Result<(), Status>);

    impl Listener for Slow<'_> {
        async fn token(&mut self, _: Chosen) -> Result<(), Status> {
            if !self.1.is_zero() {
                sleep(self.1).await;
            }
            self.0.borrow_mut().push("told");
            self.2.clone()
        }
    }

    fn chosen() -> Chosen {
        let (token, participation) = (GeneratedToken::default(), Participation::default());
        Chosen { token, text: String::new(), participation }
    }

    async fn step(log: &Log) -> u32 {
        log.borrow_mut().push("asked");
        sleep(Duration::from_millis(10)).await;
        log.borrow_mut().push("answered");
        7
    }

    async fn told_in(
        milliseconds: u64,
        wants: Result<(), Status>,
    ) -> (Result<u32, Status>, Vec<&'static str>) {
        let log = Log::default();
        let mut listener = Slow(&log, Duration::from_millis(milliseconds), wants);
        let next = tell_meanwhile(Some(chosen()), &mut listener, pin!(step(&log))).await;
        (next, log.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_asked_before_a_token_is_told_and_answer_after_it() {
        let (next, log) = told_in(5, Ok(())).await;
        assert_eq!((next.unwrap(), log), (7, vec!["asked", "told", "answered"]));
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_asked_for_all_generations_before_any_token_is_told() {
        let log = Log::default();
        let generation = async || {
            let mut listener = Slow(&log, Duration::ZERO, Ok(()));
            tell_meanwhile(Some(chosen()), &mut listener, pin!(step(&log))).await
        };
        let (first, second) = tokio::join!(generation(), generation());
        assert_eq!((first.unwrap(), second.unwrap()), (7, 7));
        assert_eq!(log.into_inner()[..4], ["asked", "asked", "told", "told"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_listener_does_not_keep_a_step_from_going_on() {
        let (next, log) = told_in(1000, Ok(())).await;
        assert_eq!((next.unwrap(), log), (7, vec!["asked", "answered", "told"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_given_up_when_nobody_wants_more() {
        for (milliseconds, expected) in
            [(5, vec!["asked", "told"]), (1000, vec!["asked", "answered", "told"])]
        {
            let (next, log) = told_in(milliseconds, Err(Status::cancelled("enough"))).await;
            assert_eq!((next.unwrap_err().message(), log), ("enough", expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_step_follows_no_token() {
        let log = Log::default();
        let mut listener = Slow(&log, Duration::ZERO, Ok(()));
        assert_eq!(tell_meanwhile(None, &mut listener, pin!(step(&log))).await.unwrap(), 7);
        assert_eq!(log.into_inner(), ["asked", "answered"]);
    }
}
