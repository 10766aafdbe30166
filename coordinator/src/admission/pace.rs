//! [`Pace`]: how fast places become free while somebody waits, and so after what time it is worth to ask again.
//!
//! Knows nothing about who has the places.

use std::time::{Duration, Instant};

/// Whoever is refused is told to come back after this at the least, and at the most.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(30);
/// Before anything is known: after this long somebody has finished, as a rule.
pub(super) const UNKNOWN: Duration = Duration::from_secs(1);
/// What was observed so long ago counts for a third.
const MEMORY: f64 = 5.0;

/// Requests that ended while others waited, over the time in which others waited; old ones fade.
#[derive(Debug, Default)]
pub(super) struct Pace {
    ended: f64,
    seconds: f64,
    /// Since when somebody has waited, or the last one ended while somebody did.
    since: Option<Instant>,
}

impl Pace {
    /// Somebody waits, or nobody does any more.
    pub(super) fn waited_for(&mut self, waited_for: bool, now: Instant) {
        if !waited_for {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// A running request has ended.
    pub(super) fn ended(&mut self, now: Instant) {
        let Some(since) = self.since.replace(now) else {
            self.since = None;
            return;
        };
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let fade = (-passed / MEMORY).exp();
        self.ended = self.ended * fade + 1.0;
        self.seconds = self.seconds * fade + passed;
    }

    /// The time in which so many requests will have ended.
    pub(super) fn time_of(&self, requests: usize) -> Duration {
        // The first few may end at once, and then nothing for long.
        if self.ended < 1.0 || self.seconds <= 0.0 {
            return UNKNOWN;
        }
        let seconds = self.seconds / self.ended * requests as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_follows_from_the_pace_at_which_places_become_free() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        assert_eq!(pace.time_of(100), UNKNOWN);
        pace.waited_for(true, now);
        // A hundred a second, ten together.
        for _ in 0..500 {
            now += Duration::from_millis(100);
            (0..10).for_each(|_| pace.ended(now));
        }
        let found = pace.time_of(200).as_secs_f64();
        assert!((found - 2.0).abs() < 0.1, "{found}");
        // Ten times slower, for as long as it takes to notice.
        for _ in 0..400 {
            now += Duration::from_millis(100);
            pace.ended(now);
        }
        let found = pace.time_of(200).as_secs_f64();
        assert!((found - 20.0).abs() < 0.5, "{found}");
        assert_eq!((pace.time_of(1), pace.time_of(1_000_000)), (SOONEST, LATEST));
    }

    #[test]
    fn what_ends_while_nobody_waits_says_nothing() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.ended(start);
        pace.ended(start + Duration::from_secs(3600));
        assert_eq!(pace.time_of(10), UNKNOWN);
        pace.waited_for(true, start + Duration::from_secs(7200));
        pace.ended(start + Duration::from_secs(7201));
        pace.waited_for(false, start + Duration::from_secs(7201));
        pace.ended(start + Duration::from_secs(9000));
        assert_eq!(pace.time_of(10), Duration::from_secs(10));
    }
}
