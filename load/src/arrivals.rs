//! When the calls of an open loop should start, whatever the server does. Knows nothing about clocks or calls.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The arrivals of a Poisson process: the gaps are exponential and independent, as those of many callers who know
/// nothing of each other. The items are times since the start, and never end.
///
/// ```
/// use chorus_load::arrivals::Poisson;
///
/// let times: Vec<_> = Poisson::new(1000.0, 7, 0).take(10_000).collect();
/// assert!(times.is_sorted());
/// let mean = times[9_999].as_secs_f64() / 10_000.0;
/// assert!((mean - 0.001).abs() < 0.000_05);
/// ```
#[derive(Debug, Clone)]
pub struct Poisson {
    mean_gap: f64,
    elapsed: f64,
    random: ChaCha8Rng,
}

impl Poisson {
    /// `rate` arrivals a second on average, which has to be positive. The same seed and stream give the same times;
    /// other streams of one seed are independent of it, so that several threads share a rate: the union of Poisson
    /// processes is one, of the sum of their rates.
    #[must_use]
    pub fn new(rate: f64, seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self { mean_gap: 1.0 / rate, elapsed: 0.0, random }
    }
}

impl Iterator for Poisson {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // In (0, 1], so that the logarithm is finite.
        let uniform = 1.0 - self.random.random::<f64>();
        self.elapsed -= self.mean_gap * uniform.ln();
        Some(Duration::try_from_secs_f64(self.elapsed).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 250.0;
    const GAPS: usize = 20_000;

    fn gaps(seed: u64, stream: u64) -> Vec<f64> {
        let times: Vec<f64> =
            Poisson::new(RATE, seed, stream).take(GAPS).map(|time| time.as_secs_f64()).collect();
        let before = std::iter::once(0.0).chain(times.iter().copied());
        times.iter().zip(before).map(|(time, before)| time - before).collect()
    }

    #[test]
    fn the_gaps_have_the_mean_and_the_deviation_of_an_exponential_distribution() {
        let gaps = gaps(1, 0);
        let mean = gaps.iter().sum::<f64>() / GAPS as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / GAPS as f64).sqrt();
        // Four standard errors of the mean; an exponential distribution deviates by its mean.
        let error = 4.0 / RATE / (GAPS as f64).sqrt();
        assert!((mean - 1.0 / RATE).abs() < error, "{mean}");
        assert!((deviation / mean - 1.0).abs() < 0.05, "{deviation}");
    }

    #[test]
    fn the_gaps_are_distributed_exponentially() {
        let mut gaps = gaps(2, 0);
        gaps.sort_by(f64::total_cmp);
        // Kolmogorov's distance to 1 - exp(-rate t); 1.95 / sqrt(n) is passed once in a thousand seeds.
        let distance = gaps.iter().enumerate().map(|(rank, gap)| {
            let expected = 1.0 - (-RATE * gap).exp();
            (expected - rank as f64 / GAPS as f64)
                .abs()
                .max((expected - (rank + 1) as f64 / GAPS as f64).abs())
        });
        let largest = distance.fold(0.0, f64::max);
        assert!(largest < 1.95 / (GAPS as f64).sqrt(), "{largest}");
    }

    #[test]
    fn the_gaps_do_not_know_of_each_other() {
        let gaps = gaps(3, 0);
        let mean = gaps.iter().sum::<f64>() / GAPS as f64;
        let (mut covariance, mut variance) = (0.0, 0.0);
        for pair in gaps.windows(2) {
            covariance += (pair[0] - mean) * (pair[1] - mean);
            variance += (pair[0] - mean).powi(2);
        }
        assert!((covariance / variance).abs() < 4.0 / (GAPS as f64).sqrt(), "{}", covariance / variance);
    }

    #[test]
    fn a_seed_and_a_stream_decide_everything() {
        assert_eq!(gaps(5, 1), gaps(5, 1));
        assert_ne!(gaps(5, 1)[..10], gaps(5, 2)[..10]);
        assert_ne!(gaps(5, 1)[..10], gaps(6, 1)[..10]);
    }
}
