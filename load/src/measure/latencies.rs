//! Many latencies in a bounded place: an HDR histogram, exact to three digits. Knows nothing about what lasted so long.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is told apart at the lower end, in nanoseconds.
const LEAST: u64 = 100;
/// What is counted as this at the upper end: an hour.
const MOST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// A histogram of durations.
///
/// ```
/// use std::time::Duration;
/// use chorus_load::measure::Latencies;
///
/// let mut latencies = Latencies::new();
/// for milliseconds in 1..=100 {
///     latencies.record(Duration::from_millis(milliseconds));
/// }
/// assert_eq!(latencies.at(0.5).as_millis(), 50);
/// assert_eq!(latencies.len(), 100);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies(Histogram<u64>);

/// One point of a histogram by percentile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// The share of values that are not above `value`, in [0, 1].
    pub share: f64,
    /// The value.
    pub value: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let Ok(histogram) = Histogram::new_with_bounds(LEAST, MOST, DIGITS) else {
            unreachable!("the bounds are constants that fit each other")
        };
        Self(histogram)
    }

    /// Counts a value; one above an hour counts as an hour.
    pub fn record(&mut self, value: Duration) {
        let nanoseconds = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds);
    }

    /// Takes in the values of another: the percentiles are then those of all values, which no mean of percentiles is.
    pub fn merge(&mut self, other: &Self) {
        // It fails for values beyond the bounds only, which are the same for all.
        let _same_bounds = self.0.add(&other.0);
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that this share of all, in [0, 1], is not above; zero where there is none.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    /// The mean; zero where there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.0.mean() / 1e9).unwrap_or_default()
    }

    /// The smallest value; zero where there is none.
    #[must_use]
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }

    /// The largest value; zero where there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The whole distribution, in steps that halve the distance to 1 after every four.
    pub fn quantiles(&self) -> impl Iterator<Item = Quantile> + '_ {
        self.0.iter_quantiles(4).map(|step| Quantile {
            share: step.quantile_iterated_to(),
            value: Duration::from_nanos(step.value_iterated_to()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Latencies {
        let mut latencies = Latencies::new();
        for value in values {
            latencies.record(Duration::from_nanos(*value));
        }
        latencies
    }

    #[test]
    fn what_is_beyond_the_bounds_is_counted_and_not_lost() {
        let latencies = of(&[0, u64::MAX]);
        assert_eq!((latencies.len(), latencies.min()), (2, Duration::ZERO));
        let hour = latencies.max().as_secs_f64() / 3600.0;
        assert!((hour - 1.0).abs() < 2e-3, "{hour}");
    }

    #[test]
    fn the_empty_one_has_no_values_and_no_errors() {
        let empty = Latencies::new();
        assert!(empty.is_empty() && empty.quantiles().next().is_none());
        assert_eq!((empty.at(0.99), empty.mean(), empty.max()), Default::default());
    }

    proptest! {
        #[test]
        fn merged_histograms_are_the_histogram_of_all_values(
            values in prop::collection::vec(0_u64..2_000_000_000_000, 1..200), cut in 0_usize..200,
        ) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(merged, of(&values));
        }

        #[test]
        fn a_percentile_is_a_value_to_three_digits(
            mut values in prop::collection::vec(1_000_u64..2_000_000_000_000, 1..200), share in 0.001_f64..1.0,
        ) {
            let found = of(&values).at(share).as_nanos() as f64;
            values.sort_unstable();
            let rank = ((share * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let expected = values[rank - 1] as f64;
            prop_assert!((found / expected - 1.0).abs() < 1e-3, "{} is not {}", found, expected);
        }
    }
}
