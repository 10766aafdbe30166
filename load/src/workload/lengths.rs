//! How long something is: one number or a distribution. Knows nothing about what is counted.

use std::{fmt, str::FromStr};

use rand::{Rng, RngExt as _};

/// A distribution over whole numbers from 1 on.
///
/// ```
/// use chorus_load::workload::Lengths;
///
/// assert_eq!("32".parse(), Ok(Lengths::Fixed(32)));
/// assert_eq!("8..64".parse(), Ok(Lengths::Uniform { least: 8, most: 64 }));
/// assert_eq!("exp:40".parse(), Ok(Lengths::Exponential { mean: 40 }));
/// assert!("0".parse::<Lengths>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// Always the same.
    Fixed(u32),
    /// Each of `least..=most` equally often.
    Uniform {
        /// The smallest.
        least: u32,
        /// The largest.
        most: u32,
    },
    /// Exponential with this mean, rounded up, at most 20 times the mean: many short ones and a long tail.
    Exponential {
        /// The mean.
        mean: u32,
    },
}

/// Where a tail is cut, in means: one in 5e8 would be longer.
const LONGEST_TAIL: u32 = 20;

/// No distribution of lengths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no length; allowed: N, A..B (each equally often) or exp:MEAN, whole numbers of at least 1")]
pub struct LengthsError(String);

impl Lengths {
    /// The largest length that is ever drawn.
    #[must_use]
    pub fn longest(self) -> u32 {
        match self {
            Self::Fixed(length) => length,
            Self::Uniform { most, .. } => most,
            Self::Exponential { mean } => mean.saturating_mul(LONGEST_TAIL),
        }
    }

    /// One length.
    pub fn draw(self, random: &mut impl Rng) -> u32 {
        match self {
            Self::Fixed(length) => length,
            Self::Uniform { least, most } => random.random_range(least..=most),
            Self::Exponential { mean } => {
                let uniform = 1.0 - random.random::<f64>();
                // Rounding up adds half a token to the mean.
                let length = (0.5 - f64::from(mean)).min(0.0) * uniform.ln();
                // Saturates where it is too large.
                (length.ceil() as u32).clamp(1, self.longest())
            }
        }
    }
}

impl FromStr for Lengths {
    type Err = LengthsError;

    fn from_str(text: &str) -> Result<Self, LengthsError> {
        let wrong = || LengthsError(text.to_owned());
        let number = |text: &str| text.parse().ok().filter(|number| *number >= 1).ok_or_else(wrong);
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential { mean: number(mean)? });
        }
        let Some((least, most)) = text.split_once("..") else {
            return Ok(Self::Fixed(number(text)?));
        };
        let (least, most) = (number(least)?, number(most)?);
        if least > most {
            return Err(wrong());
        }
        Ok(Self::Uniform { least, most })
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Uniform { least, most } => write!(f, "{least}..{most}"),
            Self::Exponential { mean } => write!(f, "exp:{mean}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn what_is_no_length_is_refused_with_the_forms() {
        for text in ["", "0", "-1", "1.5", "5..2", "0..3", "..", "1..", "exp:", "exp:0", "4294967296"] {
            let error = text.parse::<Lengths>().unwrap_err().to_string();
            assert!(error.contains("A..B") && error.contains("exp:MEAN"), "{error}");
        }
    }

    #[test]
    fn a_length_is_written_as_it_is_read() {
        for text in ["1", "3..3", "exp:7"] {
            assert_eq!(text.parse::<Lengths>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn drawn_lengths_have_the_mean_and_the_bounds() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for (text, mean, longest) in [("40", 40.0, 40), ("10..30", 20.0, 30), ("exp:50", 50.0, 1000)] {
            let lengths: Lengths = text.parse().unwrap();
            let drawn: Vec<u32> = (0..20_000).map(|_| lengths.draw(&mut random)).collect();
            let found = drawn.iter().map(|length| f64::from(*length)).sum::<f64>() / 20_000.0;
            assert!((found / mean - 1.0).abs() < 0.03, "{text}: {found}");
            assert!(drawn.iter().all(|length| (1..=longest).contains(length)));
            assert_eq!(lengths.longest(), longest);
        }
    }
}
