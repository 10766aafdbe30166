//! When the device is probed, and what follows: out at the first probe that fails, back after a few that pass.
//!
//! Pure: time is an argument. Knows nothing about what a probe computes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::condition::Condition;

/// Between probes of a device that is not sound.
const UNSOUND_INTERVAL: Duration = Duration::from_secs(1);
/// Probes in a row that an unsound device has to pass.
const PASSES: u32 = 2;

/// The condition of a device and when it is looked at next. The default is one that nothing calls to look at.
#[derive(Debug, Default)]
pub(crate) struct Soundness {
    /// Between probes of a sound device; none: only when there is a suspicion.
    interval: Option<Duration>,
    condition: Condition,
    /// Probes that an unsound device has passed in a row.
    passes: u32,
    due: Option<Instant>,
    /// Whether the next probe is due because something went wrong.
    is_suspected: bool,
}

impl Soundness {
    /// A device that has passed its first probe just now.
    pub(crate) fn new(interval: Option<Duration>, now: Instant) -> Self {
        let mut soundness = Self { interval, ..Self::default() };
        soundness.due_after(interval, now);
        soundness
    }

    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// When the next probe is to run; none where nothing calls for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something went wrong that a device out of order would explain: the next probe is due at once. One that is known to
    /// be out of order is looked at in its own time.
    pub(crate) fn suspect(&mut self, now: Instant) {
        if self.condition == Condition::Sound {
            self.due = Some(now);
            self.is_suspected = true;
        }
    }

    /// Whether something went wrong since the last probe.
    pub(crate) fn is_suspected(&self) -> bool {
        self.is_suspected
    }

    /// A probe passed. True where the device is sound again by that.
    pub(crate) fn passed(&mut self, now: Instant) -> bool {
        self.is_suspected = false;
        if self.condition == Condition::Sound {
            self.due_after(self.interval, now);
            return false;
        }
        self.passes += 1;
        if self.passes < PASSES {
            self.due_after(Some(UNSOUND_INTERVAL), now);
            return false;
        }
        self.condition = Condition::Sound;
        self.due_after(self.interval, now);
        true
    }

    /// A probe failed. True where the device was sound until then; else the first reason stays.
    pub(crate) fn failed(&mut self, reason: &str, now: Instant) -> bool {
        self.is_suspected = false;
        self.passes = 0;
        self.due_after(Some(UNSOUND_INTERVAL), now);
        self.condemn(reason.into())
    }

    /// The device was found out of order by somebody else, who says why; the next probe is due at once.
    pub(crate) fn found_unsound(&mut self, reason: Arc<str>, now: Instant) -> bool {
        self.passes = 0;
        self.due = Some(now);
        self.condemn(reason)
    }

    fn condemn(&mut self, reason: Arc<str>) -> bool {
        let was_sound = self.condition == Condition::Sound;
        if was_sound {
            self.condition = Condition::Unsound { reason };
        }
        was_sound
    }

    fn due_after(&mut self, interval: Option<Duration>, now: Instant) {
        self.due = interval.and_then(|interval| now.checked_add(interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_sound_device_is_probed_regularly_and_at_once_where_it_is_suspected() {
        let start = Instant::now();
        let mut soundness = Soundness::new(Some(INTERVAL), start);
        assert_eq!(soundness.due(), Some(start + INTERVAL));
        assert!(!soundness.is_due(start + INTERVAL - Duration::from_nanos(1)));
        assert!(soundness.is_due(start + INTERVAL));
        assert!(!soundness.passed(start + INTERVAL), "it was sound before");
        assert_eq!(soundness.due(), Some(start + 2 * INTERVAL));
        soundness.suspect(start + INTERVAL);
        assert_eq!(soundness.due(), Some(start + INTERVAL));
    }

    #[test]
    fn without_an_interval_only_a_suspicion_calls_for_a_probe() {
        let now = Instant::now();
        let mut soundness = Soundness::new(None, now);
        assert_eq!(soundness.due(), None);
        soundness.suspect(now);
        assert!(soundness.is_due(now));
        soundness.passed(now);
        assert_eq!(soundness.due(), None);
    }

    #[test]
    fn an_unsound_device_is_probed_each_second_and_is_back_after_two_passes_in_a_row() {
        let mut now = Instant::now();
        let mut soundness = Soundness::new(Some(INTERVAL), now);
        assert!(soundness.failed("first", now) && !soundness.failed("second", now));
        assert_eq!(soundness.condition().reason().map(AsRef::as_ref), Some("first"));
        let second = Duration::from_secs(1);
        soundness.suspect(now);
        assert_eq!(soundness.due(), Some(now + second), "it is known already");
        now += second;
        assert!(!soundness.passed(now) && !soundness.failed("third", now));
        assert!(!soundness.passed(now), "the pass before the failure does not count");
        assert_eq!(soundness.due(), Some(now + second));
        assert!(soundness.passed(now));
        assert_eq!((soundness.condition(), soundness.due()), (&Condition::Sound, Some(now + INTERVAL)));
    }

    #[test]
    fn a_device_that_somebody_else_found_unsound_has_to_pass_too() {
        let now = Instant::now();
        let mut soundness = Soundness::new(None, now);
        assert!(soundness.found_unsound("stuck".into(), now));
        assert!(soundness.is_due(now));
        assert!(!soundness.passed(now) && soundness.passed(now));
        assert_eq!(soundness.due(), None);
    }
}
