//! [`Losses`]: how often a session lost a member, and what follows for its way back.
//!
//! Knows nothing about how a member comes back.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::replica::ReplicaError;

/// Losses by its own fault after which a member stays out: each may cost the session a whole deadline.
const MOST_FAULTS: u32 = 4;
/// The second way back starts after the shortest delay, each later one after twice the delay before.
const SHORTEST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What one session remembers of one member.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    all: usize,
    faults: u32,
}

/// What follows from a loss.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It may come back after this long.
    After(Duration),
    /// It stays out of the session, and why.
    Never(String),
}

impl Losses {
    /// Counts a loss. The first way back starts at once.
    pub(super) fn count(&mut self, error: &ReplicaError) -> Return {
        // What the member can't read now it can't read later.
        if matches!(error, ReplicaError::Refused { .. }) {
            return Return::Never(error.to_string());
        }
        self.all += 1;
        self.faults += u32::from(is_its_fault(error));
        if self.faults >= MOST_FAULTS {
            return Return::Never(format!("{error}; it stays out after {MOST_FAULTS} failures"));
        }
        Return::After(self.all.checked_sub(2).map_or(Duration::ZERO, delay))
    }
}

/// Whether the member is there and fails; one that is dead or stands still comes back when it is heard of.
fn is_its_fault(error: &ReplicaError) -> bool {
    match error {
        ReplicaError::Late { .. } | ReplicaError::Protocol { .. } | ReplicaError::NotFinite { .. } => true,
        ReplicaError::Lost { .. }
        | ReplicaError::Silent { .. }
        | ReplicaError::Refused { .. }
        | ReplicaError::Exhausted { .. }
        | ReplicaError::UnknownSession => false,
    }
}

fn delay(number: usize) -> Duration {
    let delays = ExponentialBuilder::new()
        .with_min_delay(SHORTEST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times();
    delays.build().nth(number).unwrap_or(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(milliseconds: u64) -> Return {
        Return::After(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_dead_link_comes_back_at_once_and_then_later_and_later() {
        let mut losses = Losses::default();
        let lost = ReplicaError::Lost { reason: "killed".to_owned() };
        let returns: Vec<_> = (0..5).map(|_| losses.count(&lost)).collect();
        assert_eq!(returns, [0, 250, 500, 1000, 2000].map(after));
        let last = (0..100).map(|_| losses.count(&lost)).last();
        assert_eq!(last, Some(after(30_000)));
    }

    #[test]
    fn a_member_that_fails_again_and_again_stays_out() {
        let mut losses = Losses::default();
        let late = ReplicaError::Late { milliseconds: 700 };
        let not_finite = ReplicaError::NotFinite { what: "the logit of token 3 is NaN".to_owned() };
        let protocol = ReplicaError::Protocol { violation: "too short".to_owned() };
        assert_eq!(losses.count(&late), after(0));
        assert_eq!(losses.count(&not_finite), after(250));
        assert_eq!(losses.count(&protocol), after(500));
        let out = "no answer within 700 ms; it stays out after 4 failures";
        assert_eq!(losses.count(&late), Return::Never(out.to_owned()));
    }

    #[test]
    fn what_was_refused_once_is_not_tried_again() {
        let refused = ReplicaError::Refused { message: "token 9".to_owned() };
        let out = Return::Never("it refused the request: token 9".to_owned());
        assert_eq!(Losses::default().count(&refused), out);
    }
}
