//! When a process that died is started again: exponential back-off that forgets after a healthy while.
//!
//! Pure: time is an argument. Knows nothing about processes.

use std::time::{Duration, Instant};

/// The numbers of the back-off.
#[derive(Debug, Clone, Copy)]
pub(super) struct RestartPolicy {
    /// The wait after a first death.
    pub(super) first_delay: Duration,
    /// No wait is longer; every death doubles it up to here.
    pub(super) longest_delay: Duration,
    /// After having listened for this long, a death counts as a first one again.
    pub(super) healthy_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(250),
            longest_delay: Duration::from_secs(10),
            healthy_after: Duration::from_secs(10),
        }
    }
}

/// The back-off of one process.
#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    next_delay: Duration,
    listening_since: Option<Instant>,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self { policy, next_delay: policy.first_delay, listening_since: None }
    }

    /// The process listens.
    pub(super) fn listening(&mut self, now: Instant) {
        self.listening_since = Some(now);
    }

    /// The process died; how long to wait before it is started again.
    pub(super) fn died(&mut self, now: Instant) -> Duration {
        let listened = self.listening_since.take().map(|since| now.saturating_duration_since(since));
        if listened.is_some_and(|listened| listened >= self.policy.healthy_after) {
            self.next_delay = self.policy.first_delay;
        }
        let delay = self.next_delay;
        self.next_delay = (delay * 2).min(self.policy.longest_delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        first_delay: Duration::from_secs(1),
        longest_delay: Duration::from_secs(5),
        healthy_after: Duration::from_secs(60),
    };

    fn seconds(delay: Duration) -> u64 {
        delay.as_secs()
    }

    #[test]
    fn each_death_doubles_the_wait_up_to_the_longest() {
        let mut restarts = Restarts::new(POLICY);
        let now = Instant::now();
        let waits: Vec<u64> = (0..5).map(|_| seconds(restarts.died(now))).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_healthy_while_starts_the_waits_over() {
        let mut restarts = Restarts::new(POLICY);
        let start = Instant::now();
        restarts.died(start);
        restarts.died(start);
        restarts.listening(start);
        assert_eq!(seconds(restarts.died(start + POLICY.healthy_after)), 1);
    }

    #[test]
    fn listening_for_too_short_does_not() {
        let mut restarts = Restarts::new(POLICY);
        let start = Instant::now();
        restarts.died(start);
        restarts.listening(start);
        let almost = POLICY.healthy_after - Duration::from_millis(1);
        assert_eq!(seconds(restarts.died(start + almost)), 2);
    }

    #[test]
    fn time_spent_dead_is_not_healthy_time() {
        let mut restarts = Restarts::new(POLICY);
        let start = Instant::now();
        restarts.listening(start);
        assert_eq!(seconds(restarts.died(start)), 1);
        // It never listened again, whatever the clock says.
        assert_eq!(seconds(restarts.died(start + POLICY.healthy_after * 2)), 2);
    }
}
