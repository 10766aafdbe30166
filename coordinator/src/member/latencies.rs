//! How soon a member answers: the 95th percentile of its last answers.
//!
//! Pure. Knows nothing about what was asked.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Answers that the percentile is of: at least this many, at most twice as many.
const WINDOW: u64 = 512;
/// Answers after which it is worked out again.
const FRESHNESS: u64 = 64;
const PERCENTILE: f64 = 0.95;
/// Microseconds; what is longer counts as this long.
const LONGEST: u64 = 60_000_000;

/// The latencies of the last answers.
#[derive(Debug)]
pub(super) struct Latencies {
    /// The older of two histograms, which both take in everything: it is what is read.
    current: Histogram<u32>,
    next: Histogram<u32>,
    percentile: Option<Duration>,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { current: histogram(), next: histogram(), percentile: None }
    }

    /// Takes one in.
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
        self.current.saturating_record(micros);
        self.next.saturating_record(micros);
        let count = self.current.len();
        if count >= WINDOW && count.is_multiple_of(FRESHNESS) {
            self.percentile = Some(Duration::from_micros(self.current.value_at_quantile(PERCENTILE)));
        }
        if count >= 2 * WINDOW {
            std::mem::swap(&mut self.current, &mut self.next);
            // What is next now began half a window ago.
            self.next.reset();
        }
    }

    /// The 95th percentile; none before there were enough.
    pub(super) fn percentile(&self) -> Option<Duration> {
        self.percentile
    }
}

fn histogram() -> Histogram<u32> {
    // Two digits are enough to wait by. The bounds are constants that the constructor takes.
    Histogram::new_with_max(LONGEST, 2).unwrap_or_else(|_| unreachable!("the bounds are sound"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn before_there_were_enough_it_says_nothing() {
        let mut latencies = Latencies::new();
        (1..WINDOW).for_each(|_| latencies.record(milliseconds(1)));
        assert_eq!(latencies.percentile(), None);
        latencies.record(milliseconds(1));
        assert!(latencies.percentile().is_some());
    }

    #[test]
    fn it_is_that_of_the_last_answers() {
        let mut latencies = Latencies::new();
        (0..20 * WINDOW).for_each(|number| latencies.record(milliseconds(1 + number % 100)));
        let percentile = latencies.percentile().unwrap();
        assert!((milliseconds(93)..milliseconds(98)).contains(&percentile), "{percentile:?}");
        // Twice the window later nothing of that is left.
        (0..2 * WINDOW + FRESHNESS).for_each(|_| latencies.record(milliseconds(5)));
        let percentile = latencies.percentile().unwrap();
        assert!((milliseconds(5)..milliseconds(6)).contains(&percentile), "{percentile:?}");
    }
}
