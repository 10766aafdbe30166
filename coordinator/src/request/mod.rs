//! From requests on the wire to requests that can be carried out: everything that is a caller's mistake is found here,
//! before any member hears of the request. Knows nothing about members' health, sessions or time.

mod adjusting;
mod beam;
mod classification;
mod distributions;
mod fusion;
mod input;
mod ranking;
mod sampling;
mod stop;

#[cfg(test)]
mod tests;

use std::fmt;

use chorus_proto::v1::{self, ErrorCode};
use chorus_text::Vocabulary;

use crate::{
    config::Limits,
    fusion::{Fusion, Rule},
    plan::Plan,
    sampling::Sampling,
    weights::{Learned, Weights},
};

pub use self::adjusting::Adjusting;
pub use self::beam::Beam;
pub use self::classification::{Calibration, Classification};
pub use self::distributions::Distributions;
pub use self::fusion::Fusing;
pub use self::ranking::{By, Ranking};

/// What requests are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The members' vocabulary.
    pub vocabulary: &'a Vocabulary,
    /// The configured limits.
    pub limits: &'a Limits,
    /// The configured rule and threshold.
    pub fusion: &'a Fusion,
    /// The members' names, in member order.
    pub members: &'a [String],
    /// The configured weights, in member order.
    pub weights: &'a Weights,
    /// Weights that were learned, in their place.
    pub learned: Option<&'a Learned>,
}

/// A caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// Path of the field in the request, such as `sampling.temperature`.
    pub field: &'static str,
    /// What was wrong and what is allowed.
    pub message: String,
}

/// A checked `GenerateRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// At least 1.
    pub max_tokens: u32,
    /// None empty.
    pub stop: Vec<String>,
    /// Not used where the rule yields no distribution.
    pub sampling: Sampling,
    /// Absent where the server is to choose one.
    pub seed: Option<u64>,
    /// How the members' answers become one.
    pub fusing: Fusing,
    /// Whether every token comes with log-probabilities.
    pub log_probs: bool,
    /// How the distributions are bent.
    pub adjusting: Adjusting,
    /// Likeliest tokens that come with every token.
    pub candidates: u32,
    /// Searched for, where it is not sampled.
    pub beam: Option<Beam>,
}

/// A checked `ScoreRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoring {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// How the members' answers become one.
    pub fusing: Fusing,
    /// Whether there is a row for each token.
    pub per_token: bool,
}

/// A checked `PredictRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// At least one token.
    pub prefix: Vec<u32>,
    /// At least 1; may exceed the vocabulary.
    pub top_n: u32,
    /// How the members' answers become one.
    pub fusing: Fusing,
}

/// What a request takes of the ensemble, as far as that is known before it runs.
pub trait Costs {
    /// Its tokens: those of the input, and those that it may generate.
    fn cost(&self) -> u64;
}

/// Tokens to generate where a request does not say.
const DEFAULT_MAX_TOKENS: u32 = 64;
/// Candidates where a request does not say.
const DEFAULT_TOP_N: u32 = 10;

impl RequestError {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }

    /// What the wire calls it.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidArgument
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for RequestError {}

impl Generation {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::GenerateRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let mut request = request;
        let fusing = fusion::check(request.fusion.take(), terms)?;
        let (sampling, seed) = sampling::check(request.sampling.as_ref(), fusing.fusion.rule)?;
        if request.log_probs && !fusing.fusion.rule.yields_distribution() {
            let message = "threshold_vote has no distribution and so no log-probabilities; allowed: false, or another rule";
            return Err(RequestError::new("log_probs", message));
        }
        Ok(Self {
            max_tokens: count(
                "max_tokens",
                request.max_tokens,
                DEFAULT_MAX_TOKENS,
                terms.limits.max_generated_tokens,
            )?,
            beam: beam::check(&request, &fusing, terms)?,
            adjusting: adjusting::check(request.sampling.as_ref(), terms)?,
            candidates: at_most("candidates", request.candidates.unwrap_or(0), terms.limits.max_top_n)?,
            stop: stop::check(request.stop)?,
            sampling,
            seed,
            fusing,
            log_probs: request.log_probs,
            prompt: input::check("prompt", request.prompt, terms)?,
        })
    }

    /// What goes to the members, with a vocabulary of so many tokens.
    pub fn plan(&self, vocabulary_size: usize) -> Plan {
        let Fusing { fusion, rows, .. } = self.fusing;
        // What the members say of a chosen token is the evidence for the next one.
        let needs_rows = self.log_probs || self.fusing.weighting.is_adaptive() || self.bends_or_shows();
        match &self.beam {
            Some(beam) => Plan::for_beam(&fusion, beam.leaders(), needs_rows, rows, vocabulary_size),
            None => Plan::for_generate(&fusion, &self.sampling, needs_rows, rows, vocabulary_size),
        }
    }

    /// Whether more than the fused distribution as it is is of interest.
    fn bends_or_shows(&self) -> bool {
        self.candidates > 0 || !self.adjusting.is_none()
    }

    /// Whether of every step only its winner is of interest, not how likely it was.
    pub fn wants_a_winner_only(&self) -> bool {
        match self.fusing.fusion.rule {
            _ if self.bends_or_shows() => false,
            Rule::ThresholdVote => true,
            Rule::WeightedAverage => {
                self.sampling.is_greedy() && !self.log_probs && !self.fusing.weighting.is_adaptive()
            }
            Rule::LogLinear | Rule::LogitMean | Rule::LogitMax => false,
        }
    }
}

impl Scoring {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::ScoreRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let fusing = fusion::check(request.fusion, terms)?;
        Ok(Self {
            fusing,
            per_token: request.per_token,
            tokens: input::check("input", request.input, terms)?,
        })
    }

    /// What goes to the members, with a vocabulary of so many tokens.
    pub fn plan(&self, vocabulary_size: usize) -> Plan {
        Plan::for_score(&self.fusing.fusion, self.fusing.rows, vocabulary_size)
    }
}

impl Prediction {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::PredictRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let fusing = fusion::check(request.fusion, terms)?;
        Ok(Self {
            top_n: count("top_n", request.top_n, DEFAULT_TOP_N, terms.limits.max_top_n)?,
            fusing,
            prefix: input::check("prefix", request.prefix, terms)?,
        })
    }

    /// What goes to the members, with a vocabulary of so many tokens.
    pub fn plan(&self, vocabulary_size: usize) -> Plan {
        Plan::for_predict(&self.fusing.fusion, self.top_n, self.fusing.rows, vocabulary_size)
    }
}

impl Costs for Generation {
    fn cost(&self) -> u64 {
        let sequences = self.beam.map_or(1, |beam| beam.size as u64);
        self.prompt.len() as u64 + sequences * u64::from(self.max_tokens)
    }
}

impl Costs for Scoring {
    fn cost(&self) -> u64 {
        self.tokens.len() as u64
    }
}

impl Costs for Prediction {
    fn cost(&self) -> u64 {
        self.prefix.len() as u64
    }
}

fn at_most(field: &'static str, given: u32, most: u32) -> Result<u32, RequestError> {
    if given <= most {
        return Ok(given);
    }
    Err(RequestError::new(field, format!("{given} is not allowed; allowed: 0 to {most}, the server's limit")))
}

/// A number between 1 and a limit; where it is absent, the default or the limit, whichever is less.
fn count(field: &'static str, given: Option<u32>, default: u32, most: u32) -> Result<u32, RequestError> {
    match given {
        None => Ok(default.min(most)),
        Some(value) if (1..=most).contains(&value) => Ok(value),
        Some(value) => {
            let message = format!("{value} is not allowed; allowed: 1 to {most}, the server's limit");
            Err(RequestError::new(field, message))
        }
    }
}
