//! A checked `RankRequest`. Knows nothing about how candidates are scored.

use chorus_proto::v1::{self, Normalization};

use super::{Costs, Fusing, RequestError, Terms, count, fusion, input};
use crate::plan::Plan;

/// Candidates to be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// May be empty.
    pub context: Vec<u32>,
    /// At least one, each at least one token.
    pub candidates: Vec<Vec<u32>>,
    /// What somebody else holds each of them for; finite.
    pub scores: Vec<f64>,
    /// How the members' answers become one.
    pub fusing: Fusing,
    /// What they are compared by.
    pub by: By,
    /// What log-likelihoods are multiplied by; finite.
    pub scale: f64,
    /// As many as are told.
    pub top_n: usize,
}

/// What candidates are compared by.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// The log-likelihood.
    Total,
    /// Divided by the number of tokens.
    PerToken,
    /// Less that after this context, which may be empty.
    Prior(Vec<u32>),
}

impl By {
    /// A candidate's log-likelihood, normalised.
    pub fn normalised(&self, log_prob: f64, tokens: usize, prior: Option<f64>) -> f64 {
        match self {
            Self::Total => log_prob,
            Self::PerToken => log_prob / tokens.max(1) as f64,
            Self::Prior(_) => log_prob - prior.unwrap_or(0.0),
        }
    }
}

impl Ranking {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::RankRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let fusing = fusion::check(request.fusion, terms)?;
        fusion::fixed_distribution(&fusing)?;
        let by = check_normalization(request.normalization, request.prior_context, terms)?;
        let most = terms.limits.max_candidates;
        let given = request.candidates.len();
        if !(1..=most as usize).contains(&given) {
            let message = format!("there are {given}; allowed: 1 to {most} (limits.max_candidates)");
            return Err(RequestError::new("candidates", message));
        }
        let scores: Vec<f64> =
            request.candidates.iter().map(|candidate| candidate.score.unwrap_or(0.0)).collect();
        if let Some((place, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            let message =
                format!("that of candidate {place} is {score}; allowed: a finite number, or absent");
            return Err(RequestError::new("candidates.score", message));
        }
        let context = request
            .context
            .map_or(Ok(Vec::new()), |context| input::check("context", Some(context), terms))?;
        let continuations = request.candidates.into_iter().map(|candidate| candidate.continuation);
        let candidates = input::check_all("candidates.continuation", continuations, terms)?;
        let scale = request.scale.unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(RequestError::new(
                "scale",
                format!("{scale} is not allowed; allowed: a finite number"),
            ));
        }
        let top_n = count("top_n", request.top_n, most, most)? as usize;
        Ok(Self { context, candidates, scores, fusing, by, scale, top_n })
    }

    /// What goes to the members, with a vocabulary of so many tokens.
    pub fn plan(&self, vocabulary_size: usize) -> Plan {
        Plan::for_score(&self.fusing.fusion, self.fusing.rows, vocabulary_size)
    }

    /// What candidates are looked at after: their context, and that of their prior.
    pub fn contexts(&self) -> Vec<&[u32]> {
        let prior = match &self.by {
            By::Prior(prior) => Some(prior.as_slice()),
            By::Total | By::PerToken => None,
        };
        std::iter::once(self.context.as_slice()).chain(prior).collect()
    }
}

impl Costs for Ranking {
    fn cost(&self) -> u64 {
        let candidates: usize = self.candidates.iter().map(Vec::len).sum();
        let contexts = self.contexts();
        let contexts = contexts.iter().map(|context| context.len() + candidates);
        contexts.sum::<usize>() as u64
    }
}

fn check_normalization(
    number: i32,
    prior_context: Option<v1::Input>,
    terms: &Terms<'_>,
) -> Result<By, RequestError> {
    let by = match Normalization::try_from(number) {
        Ok(Normalization::Unspecified | Normalization::Total) => By::Total,
        Ok(Normalization::PerToken) => By::PerToken,
        Ok(Normalization::Prior) => {
            let prior = prior_context
                .map_or(Ok(Vec::new()), |prior| input::check("prior_context", Some(prior), terms));
            return Ok(By::Prior(prior?));
        }
        Err(_) => {
            let message = format!("{number} is none; allowed: 1 (total), 2 (per token), 3 (prior)");
            return Err(RequestError::new("normalization", message));
        }
    };
    if prior_context.is_some() {
        let message = "only a prior has a context of its own; allowed: absent, or normalization 3 (prior)";
        return Err(RequestError::new("prior_context", message));
    }
    Ok(by)
}
