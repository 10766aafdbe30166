//! When a feed is sent to a second replica: after the observed 95th percentile, within a budget.
//!
//! J. Dean and L. A. Barroso, "The Tail at Scale", 2013: that costs a few percent more work and cuts the tail. Knows nothing
//! about sessions or replicas.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

use super::latencies::Latencies;

/// For how long a feed counts towards the budget.
const BUDGET_PERIOD: Duration = Duration::from_secs(10);
/// A second replica has to read what the first one knows, so what comes sooner than this is waited for.
const SOONEST: Duration = Duration::from_millis(2);

/// One member's latencies, and what may still be sent twice.
pub(crate) struct Hedging {
    latencies: Mutex<Latencies>,
    budget: Option<TpsBudget>,
}

impl Hedging {
    /// `share` of the feeds may be sent twice; none where it is 0.
    pub(crate) fn new(share: f32) -> Self {
        let budget = (share > 0.0).then(|| TpsBudget::new(BUDGET_PERIOD, 1, share));
        Self { latencies: Mutex::new(Latencies::new()), budget }
    }

    /// A feed of few tokens was answered after this long.
    pub(crate) fn answered(&self, latency: Duration) {
        if let Some(budget) = &self.budget {
            budget.deposit();
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(latency);
        }
    }

    /// How long an answer is waited for before a second replica may be asked; none where none may.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.budget.as_ref()?;
        let percentile = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).percentile();
        percentile.map(|percentile| percentile.max(SOONEST))
    }

    /// Takes one hedge from the budget, if there is one left.
    pub(crate) fn try_spend(&self) -> bool {
        self.budget.as_ref().is_some_and(Budget::withdraw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_feeds_may_be_sent_twice() {
        let hedging = Hedging::new(0.05);
        assert_eq!(hedging.delay(), None, "nothing is known yet");
        (0..2000).for_each(|_| hedging.answered(Duration::from_millis(7)));
        let delay = hedging.delay().unwrap();
        assert!((Duration::from_millis(7)..Duration::from_millis(8)).contains(&delay), "{delay:?}");
        let spent = (0..2000).take_while(|_| hedging.try_spend()).count();
        // The share of the feeds, and one a second of the period.
        assert!((100..=111).contains(&spent), "{spent}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_once_is_waited_for() {
        let hedging = Hedging::new(0.05);
        (0..2000).for_each(|_| hedging.answered(Duration::from_micros(80)));
        assert_eq!(hedging.delay(), Some(SOONEST));
    }

    #[tokio::test]
    async fn without_a_share_nothing_is() {
        let hedging = Hedging::new(0.0);
        (0..2000).for_each(|_| hedging.answered(Duration::from_millis(7)));
        assert_eq!(hedging.delay(), None);
        assert!(!hedging.try_spend());
    }
}
