//! How many tokens the next forward may have, so that it takes about as long as it should. Pure: knows nothing about
//! clocks, models or sessions.

use std::time::Duration;

/// Tokens that a forward may have however slow the model is: what shares the weights' way through the caches. Fewer would
/// be slower for everybody.
const LEAST_TOKENS: usize = 64;
/// Smaller forwards say little about the pace of large ones, which share more.
const TELLING_TOKENS: usize = 16;
/// The weight of the newest forward in the average.
const NEWEST: f64 = 0.2;

/// The pace of a model's forwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    target: Duration,
    most: usize,
    /// None before the first forward that tells something.
    seconds_per_token: Option<f64>,
}

impl Pace {
    /// Forwards that should take `target`, of `most` tokens at most.
    pub(crate) fn new(target: Duration, most: usize) -> Self {
        Self { target, most, seconds_per_token: None }
    }

    /// Tokens of the next forward.
    pub(crate) fn tokens(&self) -> usize {
        let fit = match self.seconds_per_token {
            // Larger than any limit where a token takes no time; the conversion saturates.
            Some(seconds) => (self.target.as_secs_f64() / seconds) as usize,
            None => LEAST_TOKENS,
        };
        fit.max(LEAST_TOKENS).min(self.most)
    }

    /// Takes in how long a forward took.
    pub(crate) fn note(&mut self, tokens: usize, took: Duration) {
        if tokens >= TELLING_TOKENS.min(self.most) && tokens > 0 {
            let newest = took.as_secs_f64() / tokens as f64;
            let before = self.seconds_per_token.unwrap_or(newest);
            self.seconds_per_token = Some(before + NEWEST * (newest - before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    #[test]
    fn a_forward_takes_as_long_as_it_should_once_the_pace_is_known() {
        for (microseconds_per_token, expected) in [(100, 200), (1, 2048), (5000, 64), (0, 2048)] {
            let mut pace = Pace::new(TARGET, 2048);
            assert_eq!(pace.tokens(), 64, "nothing is known yet");
            for _ in 0..50 {
                let tokens = pace.tokens();
                pace.note(tokens, Duration::from_micros(microseconds_per_token * tokens as u64));
            }
            assert_eq!(pace.tokens(), expected);
        }
    }

    #[test]
    fn a_change_is_followed_and_single_tokens_say_nothing() {
        let mut pace = Pace::new(TARGET, 2048);
        pace.note(100, Duration::from_millis(10));
        assert_eq!(pace.tokens(), 200);
        for _ in 0..100 {
            pace.note(1, Duration::from_millis(10));
        }
        assert_eq!(pace.tokens(), 200);
        for _ in 0..30 {
            pace.note(100, Duration::from_millis(20));
        }
        assert!((100..=101).contains(&pace.tokens()), "{}", pace.tokens());
    }

    #[test]
    fn a_small_limit_holds() {
        let mut pace = Pace::new(TARGET, 3);
        assert_eq!(pace.tokens(), 3);
        pace.note(3, Duration::from_secs(1));
        assert_eq!(pace.tokens(), 3);
    }
}
