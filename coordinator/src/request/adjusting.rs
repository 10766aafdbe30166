//! What a request changes of the fused distribution before a token is chosen, and which tokens it allows. Knows nothing about
//! how a token is chosen.

use std::sync::Arc;

use chorus_proto::v1::{SamplingOptions, TokenIds};

use super::{RequestError, Terms, input};
use crate::fusion::Adjustment;

/// How the distributions of a generation are bent.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjusting {
    /// The log-probability of tokens that are in the text already is multiplied by this; positive, 1 leaves it.
    pub repetition_penalty: f64,
    /// Nothing but these may be generated, where there are any; ascending, each once.
    pub allowed: Option<Arc<[u32]>>,
    /// These may not; ascending, each once.
    pub forbidden: Arc<[u32]>,
}

impl Default for Adjusting {
    fn default() -> Self {
        Self { repetition_penalty: 1.0, allowed: None, forbidden: [].into() }
    }
}

impl Adjusting {
    /// What it makes of a distribution after these tokens (ascending, each once).
    pub fn after<'a>(&'a self, seen: &'a [u32]) -> Adjustment<'a> {
        Adjustment {
            repetition_penalty: self.repetition_penalty,
            seen,
            allowed: self.allowed.as_deref(),
            forbidden: &self.forbidden,
        }
    }

    /// Whether it leaves the distribution as it is.
    pub fn is_none(&self) -> bool {
        // Asked at every token: a default to compare with would have to be made.
        let Self { repetition_penalty, allowed, forbidden } = self;
        *repetition_penalty == 1.0 && allowed.is_none() && forbidden.is_empty()
    }
}

/// Checks what the sampling options say of it.
pub(super) fn check(options: Option<&SamplingOptions>, terms: &Terms<'_>) -> Result<Adjusting, RequestError> {
    let Some(options) = options else {
        return Ok(Adjusting::default());
    };
    let tokens = |field, ids: &Option<TokenIds>| {
        ids.as_ref().map(|ids| input::distinct_tokens(field, &ids.ids, terms)).transpose()
    };
    let allowed = tokens("sampling.allowed", &options.allowed)?;
    let forbidden = tokens("sampling.forbidden", &options.forbidden)?.unwrap_or_default();
    check_that_some_are_left(allowed.as_deref(), &forbidden, terms)?;
    Ok(Adjusting {
        repetition_penalty: check_penalty(options.repetition_penalty.unwrap_or(1.0))?,
        allowed: allowed.map(Arc::from),
        forbidden: forbidden.into(),
    })
}

fn check_penalty(penalty: f64) -> Result<f64, RequestError> {
    if penalty.is_finite() && penalty > 0.0 {
        return Ok(penalty);
    }
    let message = format!("{penalty} is not allowed; allowed: a finite number above 0 (1 changes nothing)");
    Err(RequestError::new("sampling.repetition_penalty", message))
}

fn check_that_some_are_left(
    allowed: Option<&[u32]>,
    forbidden: &[u32],
    terms: &Terms<'_>,
) -> Result<(), RequestError> {
    let is_left = |id: &u32| forbidden.binary_search(id).is_err();
    match allowed {
        Some([]) => {
            let message = "no token is allowed; allowed: at least one, or absent for every token";
            Err(RequestError::new("sampling.allowed", message))
        }
        Some(allowed) if !allowed.iter().any(is_left) => {
            let message = "every allowed token is forbidden, too; allowed: at least one that is left";
            Err(RequestError::new("sampling.forbidden", message))
        }
        None if forbidden.len() >= terms.vocabulary.len() as usize => {
            let message = "every token of the vocabulary is forbidden; allowed: at least one that is left";
            Err(RequestError::new("sampling.forbidden", message))
        }
        _ => Ok(()),
    }
}
