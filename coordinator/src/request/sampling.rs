//! A request's sampling options. Knows nothing about how a token is chosen.

use chorus_proto::v1::SamplingOptions;

use super::RequestError;
use crate::{fusion::Rule, sampling::Sampling};

/// The sampling of a request, and its seed where it has one. A vote has no distribution to sample from, so it takes no
/// option at all.
pub(super) fn check(
    options: Option<&SamplingOptions>,
    rule: Rule,
) -> Result<(Sampling, Option<u64>), RequestError> {
    let options = options.cloned().unwrap_or_default();
    if !rule.yields_distribution() {
        refuse_all(&options, rule)?;
    }
    let default = Sampling::default();
    let sampling = Sampling {
        temperature: check_temperature(options.temperature.unwrap_or(default.temperature))?,
        top_k: options.top_k.unwrap_or(default.top_k),
        top_p: check_top_p(options.top_p.unwrap_or(default.top_p))?,
    };
    Ok((sampling, options.seed))
}

fn refuse_all(options: &SamplingOptions, rule: Rule) -> Result<(), RequestError> {
    let given = [
        ("sampling.temperature", options.temperature.is_some()),
        ("sampling.top_k", options.top_k.is_some()),
        ("sampling.top_p", options.top_p.is_some()),
        ("sampling.seed", options.seed.is_some()),
        ("sampling.repetition_penalty", options.repetition_penalty.is_some()),
        ("sampling.allowed", options.allowed.is_some()),
        ("sampling.forbidden", options.forbidden.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            let message =
                format!("{rule} has no distribution to sample from; allowed: absent, or another rule");
            Err(RequestError::new(field, message))
        }
        None => Ok(()),
    }
}

fn check_temperature(temperature: f64) -> Result<f64, RequestError> {
    if temperature.is_finite() && temperature >= 0.0 {
        return Ok(temperature);
    }
    let message =
        format!("{temperature} is not allowed; allowed: a finite number of at least 0 (0 is greedy)");
    Err(RequestError::new("sampling.temperature", message))
}

fn check_top_p(top_p: f64) -> Result<f64, RequestError> {
    if top_p > 0.0 && top_p <= 1.0 {
        return Ok(top_p);
    }
    let message = format!("{top_p} is not allowed; allowed: more than 0 and at most 1");
    Err(RequestError::new("sampling.top_p", message))
}
