//! How often each kind of call comes. Knows nothing about what a call holds.

use std::{fmt, str::FromStr};

use rand::{Rng, RngExt as _};

use super::Kind;

/// Shares of the two kinds of calls.
///
/// ```
/// use chorus_load::workload::Mix;
///
/// let mix: Mix = "generate=3,score=1".parse()?;
/// assert_eq!(mix.share_of_generate(), 0.75);
/// assert_eq!("score".parse::<Mix>()?.share_of_generate(), 0.0);
/// # Ok::<(), chorus_load::workload::MixError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    generate: f64,
    score: f64,
}

/// No mix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no mix; allowed: generate, score, or shares such as generate=3,score=1, at least one above 0"
)]
pub struct MixError(String);

impl Mix {
    /// Generations and nothing else.
    #[must_use]
    pub fn only_generate() -> Self {
        Self { generate: 1.0, score: 0.0 }
    }

    /// Between 0 and 1.
    #[must_use]
    pub fn share_of_generate(self) -> f64 {
        self.generate / (self.generate + self.score)
    }

    /// The kind of one call.
    pub fn draw(self, random: &mut impl Rng) -> Kind {
        if random.random::<f64>() < self.share_of_generate() { Kind::Generate } else { Kind::Score }
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let wrong = || MixError(text.to_owned());
        let (mut generate, mut score) = (None, None);
        for part in text.split(',') {
            let (kind, share) = part.split_once('=').unwrap_or((part, "1"));
            let share = share.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0);
            let place = match kind {
                "generate" => &mut generate,
                "score" => &mut score,
                _ => return Err(wrong()),
            };
            if place.replace(share.ok_or_else(wrong)?).is_some() {
                return Err(wrong());
            }
        }
        let mix = Self { generate: generate.unwrap_or(0.0), score: score.unwrap_or(0.0) };
        // The sum of huge shares is infinite, and no share of anything.
        let sum = mix.generate + mix.score;
        if sum > 0.0 && sum.is_finite() { Ok(mix) } else { Err(wrong()) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generate={},score={}", self.generate, self.score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_mix_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "predict",
            "generate=",
            "generate=-1",
            "generate=NaN",
            "generate=0",
            "generate=0,score=0",
            "generate=1,generate=2",
            "generate=1e308,score=1e308",
            "generate;score",
        ] {
            let error = text.parse::<Mix>().unwrap_err().to_string();
            assert!(error.contains("generate=3,score=1"), "{error}");
        }
    }

    #[test]
    fn shares_need_not_sum_to_one() {
        let share = |text: &str| text.parse::<Mix>().unwrap().share_of_generate();
        assert_eq!(share("generate"), 1.0);
        assert_eq!(share("generate,score"), 0.5);
        assert_eq!(share("score=0.5,generate=1.5"), 0.75);
    }
}
