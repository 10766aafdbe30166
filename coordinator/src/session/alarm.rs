//! A clock that wakes a task which is hardly ever late: it is put off at every step, which costs nothing before the time comes
//! that it was set to before.
//!
//! Knows nothing about what is waited for.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// Set when it is first waited for.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Sets it to a time that may be later than the one that it was set to: so it does not wake too early.
    pub(super) fn set(&mut self, at: Instant) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.0 = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Resolves at `at`, whenever it was set to. Where that was earlier, its task is woken then, for nothing.
    pub(super) async fn rings(&mut self, at: Instant) {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            if sleep.is_elapsed() || sleep.deadline() > at {
                sleep.as_mut().reset(at);
            }
            sleep.as_mut().await;
            if Instant::now() >= at {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_on_time_whatever_it_was_set_to() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut alarm = Alarm::default();
        alarm.set(after(20));
        // Earlier than it was set to, in time, later, and long after it has rung.
        for milliseconds in [10, 20, 50, 1000] {
            alarm.rings(after(milliseconds)).await;
            assert_eq!(Instant::now(), after(milliseconds));
        }
        alarm.set(after(2000));
        alarm.rings(after(1500)).await;
        assert_eq!(Instant::now(), after(1500));
        // What has passed already.
        alarm.rings(after(1200)).await;
        assert!(Instant::now() < after(1502));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_given_up_can_be_set_again() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        for step in 1..100 {
            let at = Instant::now() + Duration::from_millis(5);
            tokio::select! {
                biased;
                () = alarm.rings(at) => panic!("step {step} took too long"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        let at = Instant::now() + Duration::from_millis(5);
        alarm.rings(at).await;
        assert_eq!(Instant::now(), at);
        assert!(start.elapsed() >= Duration::from_millis(104));
    }
}
