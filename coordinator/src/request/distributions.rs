//! A checked `DistributionsRequest`. Knows nothing about how it is answered.

use chorus_proto::v1;

use super::{Costs, Fusing, RequestError, Terms, fusion, input};
use crate::plan::Plan;

/// What is wanted of every position of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Distributions {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// How the members' answers become one: never a vote.
    pub fusing: Fusing,
    /// How many of the likeliest tokens, at least one; all where absent.
    pub top_n: Option<u32>,
    /// By which the fused log-probabilities are divided: finite, above 0.
    pub temperature: f64,
    /// Whether the members' own log-probabilities are wanted.
    pub members: bool,
}

impl Distributions {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::DistributionsRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let fusing = fusion::check(request.fusion, terms)?;
        if !fusing.fusion.rule.yields_distribution() {
            let message = "threshold_vote has no distribution; allowed: another rule";
            return Err(RequestError::new("fusion.rule", message));
        }
        let temperature = request.temperature.unwrap_or(1.0);
        if !(temperature.is_finite() && temperature > 0.0) {
            let message = format!("{temperature} is not allowed; allowed: a finite number above 0");
            return Err(RequestError::new("temperature", message));
        }
        let most = terms.limits.max_top_n;
        let top_n = request.top_n.map(|given| super::count("top_n", Some(given), given, most)).transpose()?;
        Ok(Self {
            fusing,
            top_n,
            temperature,
            members: request.members,
            tokens: input::check("input", request.input, terms)?,
        })
    }

    /// What goes to the members: rows, of which everything follows.
    pub fn plan(&self) -> Plan {
        Plan::Dense(self.fusing.rows.format)
    }
}

impl Costs for Distributions {
    fn cost(&self) -> u64 {
        self.tokens.len() as u64
    }
}
