//! [`Delays`]: how long to wait before the next attempt to connect.
//!
//! Knows nothing about streams; how the last one went is told.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// With jitter a delay is at most twice this: a worker that was started again is back within a second.
const LONGEST: Duration = Duration::from_millis(500);
const SHORTEST: Duration = Duration::from_millis(25);
/// Another vocabulary does not go away by itself: somebody has to start another worker. Nor does a hung device.
const LASTING_FAULT: Duration = Duration::from_secs(5);
/// A stream that lived for so long was a good one, even if nobody asked anything on it.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// The back-off of one member's link.
pub(super) struct Delays {
    delays: ExponentialBackoff,
}

/// How a stream went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) length: Duration,
    /// It delivered an answer that was sound.
    pub(super) useful: bool,
    /// It ended because the worker did not answer on it any more.
    pub(super) hung: bool,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { delays: delays() }
    }

    pub(super) fn after_failure(&mut self) -> Duration {
        self.delays.next().unwrap_or(LONGEST)
    }

    pub(super) fn after_refusal(&self) -> Duration {
        LASTING_FAULT
    }

    /// A handshake alone is no success: a worker that breaks the protocol at once passes it every time.
    pub(super) fn after_life(&mut self, life: Life) -> Duration {
        if life.hung {
            return LASTING_FAULT;
        }
        if life.useful || life.length >= GOOD_LIFE {
            self.delays = delays();
        }
        self.after_failure()
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(SHORTEST)
        .with_max_delay(LONGEST)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Life = Life { length: Duration::from_millis(30), useful: false, hung: false };

    fn worn() -> Delays {
        let mut delays = Delays::new();
        assert!(delays.after_life(SHORT) <= 2 * SHORTEST);
        for _ in 0..6 {
            delays.after_life(SHORT);
        }
        delays
    }

    #[test]
    fn a_worker_that_fails_right_after_the_handshake_is_asked_less_and_less_often() {
        let mut delays = worn();
        assert!((LONGEST..=2 * LONGEST).contains(&delays.after_life(SHORT)));
        assert!((LONGEST..=2 * LONGEST).contains(&delays.after_failure()));
    }

    #[test]
    fn a_worker_that_was_of_use_is_looked_for_at_once() {
        for good in [Life { useful: true, ..SHORT }, Life { length: GOOD_LIFE, ..SHORT }] {
            assert!(worn().after_life(good) <= 2 * SHORTEST, "{good:?}");
        }
    }

    #[test]
    fn a_hung_worker_is_left_alone_for_a_while() {
        let hung = Life { useful: true, hung: true, ..SHORT };
        assert_eq!(Delays::new().after_life(hung), LASTING_FAULT);
    }
}
