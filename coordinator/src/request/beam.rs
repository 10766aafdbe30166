//! A request's beam search. Knows nothing about how it is carried out.

use chorus_proto::v1::{BeamOptions, GenerateRequest, SamplingOptions};

use super::{Fusing, RequestError, Terms};

/// How the likeliest sequences are searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam {
    /// Sequences that are kept at every step, at least 1.
    pub size: usize,
    /// Exponent of the length by which sequences are compared, at least 0.
    pub length_penalty: f64,
    /// Sequences that are told, 1 to `size`.
    pub n_best: usize,
}

impl Beam {
    /// Likeliest tokens of each sequence that may come next: enough that `size` are left when as many of them end.
    pub fn leaders(&self) -> u32 {
        u32::try_from(2 * self.size).unwrap_or(u32::MAX)
    }

    /// What a sequence of so many tokens with this log-probability is compared by: log P / ((5 + n) / 6)^penalty (Wu et al.
    /// 2016, arXiv:1609.08144, equation 14).
    ///
    /// ```
    /// let beam = chorus_coordinator::request::Beam { size: 4, length_penalty: 1.0, n_best: 1 };
    /// assert_eq!(beam.score(-6.0, 7), -3.0);
    /// ```
    pub fn score(&self, log_prob: f64, tokens: usize) -> f64 {
        log_prob / ((5.0 + tokens as f64) / 6.0).powf(self.length_penalty)
    }
}

/// Checks what a request says of it, and that the rest of the request goes with it.
pub(super) fn check(
    request: &GenerateRequest,
    fusing: &Fusing,
    terms: &Terms<'_>,
) -> Result<Option<Beam>, RequestError> {
    let Some(options) = request.beam else {
        return Ok(None);
    };
    let rule = fusing.fusion.rule;
    if !rule.yields_distribution() {
        let message = format!("{rule} has no distribution to search; allowed: absent, or another rule");
        return Err(RequestError::new("beam", message));
    }
    if fusing.weighting.is_adaptive() {
        let message = "weights follow one text, and a search has many; allowed: false, or no beam";
        return Err(RequestError::new("fusion.adaptive", message));
    }
    if request.candidates.is_some_and(|candidates| candidates > 0) {
        let message = "a search shows no candidates; allowed: none, or no beam";
        return Err(RequestError::new("candidates", message));
    }
    refuse_sampling(request.sampling.as_ref())?;
    let size = in_range("beam.size", options.size, terms.limits.max_beam_size, "limits.max_beam_size")?;
    let n_best = in_range("beam.n_best", options.n_best.unwrap_or(1), options.size, "beam.size")?;
    Ok(Some(Beam { size, length_penalty: check_length_penalty(&options)?, n_best }))
}

fn refuse_sampling(options: Option<&SamplingOptions>) -> Result<(), RequestError> {
    let Some(options) = options else {
        return Ok(());
    };
    let given = [
        ("sampling.temperature", options.temperature.is_some()),
        ("sampling.top_k", options.top_k.is_some()),
        ("sampling.top_p", options.top_p.is_some()),
        ("sampling.seed", options.seed.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            Err(RequestError::new(field, "a search draws nothing; allowed: absent, or no beam"))
        }
        None => Ok(()),
    }
}

fn in_range(field: &'static str, given: u32, most: u32, limit: &str) -> Result<usize, RequestError> {
    if (1..=most).contains(&given) {
        return Ok(given as usize);
    }
    Err(RequestError::new(field, format!("{given} is not allowed; allowed: 1 to {most} ({limit})")))
}

fn check_length_penalty(options: &BeamOptions) -> Result<f64, RequestError> {
    let penalty = options.length_penalty.unwrap_or(0.0);
    if penalty.is_finite() && penalty >= 0.0 {
        return Ok(penalty);
    }
    let message = format!("{penalty} is not allowed; allowed: a finite number of at least 0");
    Err(RequestError::new("beam.length_penalty", message))
}
