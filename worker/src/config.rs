//! What an operator may set about a worker, and the ranges. Knows nothing about how the numbers are used.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, time::Duration};

use chorus_model::{Precision, Quantization};

use crate::{batcher::BatchLimits, error::WorkerError};

/// Largest allowed [`WorkerConfig::max_feed_tokens`]: keeps an answer's norms within a message's framing.
pub const LARGEST_MAX_FEED_TOKENS: u32 = 8192;

/// One for each processor of the largest machines but one.
const MOST_SPARE_THREADS: usize = 1023;

/// A day, of intervals that are looked at.
const LONGEST_SECONDS: u64 = 24 * 60 * 60;

/// Everything that a worker needs to know to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The model directory.
    pub model: PathBuf,
    /// The device's name: `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// The numbers of the weights.
    pub precision: Precision,
    /// How the weights are quantised while they are loaded, if they are.
    pub quantize: Option<Quantization>,
    /// Threads of the lowest priority that help the model's thread while nothing waits for it, on processors that nobody else
    /// uses. For a process with a single thread that computes ([`chorus_model::use_threads`]), which has to share
    /// its processors with others.
    pub spare_threads: usize,
    /// Sessions held at a time, over all streams.
    pub max_sessions: u32,
    /// Tokens in one Feed.
    pub max_feed_tokens: u32,
    /// A session that is idle for longer is dropped, whether or not operations come; whole seconds travel in the model
    /// card.
    pub session_ttl: Duration,
    /// How much one forward computes.
    pub batch: BatchLimits,
    /// How often the device has to compute the golden sequence; zero: only after something went wrong.
    pub probe_interval: Duration,
    /// A forward that takes longer is stuck: far above the longest that a sound device takes.
    pub stuck_after: Duration,
    /// How long a shutdown waits for answers to be read.
    pub drain_timeout: Duration,
}

impl WorkerConfig {
    /// The defaults for a model directory, on the CPU.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            device: "cpu".to_owned(),
            precision: Precision::default(),
            quantize: None,
            spare_threads: 0,
            max_sessions: 1024,
            max_feed_tokens: 4096,
            session_ttl: Duration::from_secs(300),
            batch: BatchLimits::default(),
            probe_interval: Duration::from_secs(10),
            stuck_after: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }

    /// Checks every number against its range, and the precision against the quantization.
    ///
    /// # Errors
    /// [`WorkerError::Config`] names the first field that is out of its range.
    pub fn validate(&self) -> Result<(), WorkerError> {
        if let (Precision::Int8, Some(quantization)) = (self.precision, self.quantize) {
            return Err(WorkerError::Config {
                field: "precision",
                found: self.precision.to_string(),
                allowed: format!("{} with weights quantised as {quantization}", Precision::F32),
            });
        }
        check("spare_threads", self.spare_threads, 0..=MOST_SPARE_THREADS)?;
        check("max_sessions", self.max_sessions, 1..=1_000_000)?;
        check("max_feed_tokens", self.max_feed_tokens, 1..=LARGEST_MAX_FEED_TOKENS)?;
        check("session_ttl in seconds", self.session_ttl.as_secs(), 1..=u64::from(u32::MAX))?;
        check("batch.duration in milliseconds", self.batch.duration.as_millis(), 1..=60_000)?;
        check("batch.chunk_tokens", self.batch.chunk_tokens, 1..=1_000_000)?;
        check("batch.tokens", self.batch.tokens, 1..=1_000_000)?;
        check("batch.logits", self.batch.logits, 1..=1 << 31)?;
        check("probe_interval in seconds", self.probe_interval.as_secs(), 0..=LONGEST_SECONDS)?;
        check("stuck_after in seconds", self.stuck_after.as_secs(), 1..=LONGEST_SECONDS)
    }
}

fn check<T: PartialOrd + Display + Copy>(
    field: &'static str,
    found: T,
    allowed: RangeInclusive<T>,
) -> Result<(), WorkerError> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let allowed = format!("{} to {}", allowed.start(), allowed.end());
    Err(WorkerError::Config { field, found: found.to_string(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        WorkerConfig::new("model").validate().unwrap();
    }

    #[test]
    fn weights_are_in_8_bits_or_quantised_and_not_both() {
        let config = WorkerConfig {
            precision: Precision::Int8,
            quantize: Some(Quantization::Q4K),
            ..WorkerConfig::new("model")
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "precision is int8, allowed is f32 with weights quantised as q4k"
        );
    }

    #[test]
    fn a_number_out_of_its_range_is_named_with_the_range() {
        let config = WorkerConfig { max_feed_tokens: 9000, ..WorkerConfig::new("model") };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "max_feed_tokens is 9000, allowed is 1 to 8192"
        );
    }
}
