//! A checked `ClassifyRequest`. Knows nothing about how texts are scored or labels chosen.

use std::collections::BTreeSet;

use chorus_proto::v1::{self, Input, LabelCalibration, input::Input as Text};

use super::{Costs, Fusing, RequestError, Terms, fusion, input};
use crate::plan::Plan;

/// Where the text goes in a template.
const PLACE: &str = "{text}";

/// A text to be labelled.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The labels' names; at least two.
    pub labels: Vec<String>,
    /// For each label the tokens of its template with the text in it.
    pub sequences: Vec<Vec<u32>>,
    /// How the members' distributions over labels become one.
    pub fusing: Fusing,
    /// One for each member, in member order.
    pub calibrations: Vec<Calibration>,
}

/// What becomes of a member's log-likelihoods.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// They are multiplied by it; finite, at least 0.
    pub scale: f64,
    /// And this is added, label by label; finite.
    pub biases: Vec<f64>,
}

impl Calibration {
    /// The log-probabilities of the labels, of log-likelihoods of the text under each.
    ///
    /// ```
    /// let uncalibrated = chorus_coordinator::request::Calibration { scale: 1.0, biases: vec![0.0; 2] };
    /// let log_probs = uncalibrated.log_probs(&[-1000.0, -1000.0 - 3_f64.ln()]);
    /// assert!((log_probs[0].exp() - 0.75).abs() < 1e-9);
    /// ```
    pub fn log_probs(&self, log_likelihoods: &[f64]) -> Vec<f64> {
        let scores = log_likelihoods.iter().zip(&self.biases);
        let scores: Vec<f64> = scores.map(|(likelihood, bias)| self.scale * likelihood + bias).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        scores.into_iter().map(|score| score - largest - sum.ln()).collect()
    }
}

impl Classification {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is wrong, what was wrong with it, and what is allowed.
    pub fn new(request: v1::ClassifyRequest, terms: &Terms<'_>) -> Result<Self, RequestError> {
        let fusing = fusion::check(request.fusion, terms)?;
        if fusing.weighting.is_adaptive() {
            let message = "weights follow one text, and every label has its own; allowed: false";
            return Err(RequestError::new("fusion.adaptive", message));
        }
        let v1::ClassifyRequest { text, labels, calibration, .. } = request;
        if text.is_empty() {
            return Err(RequestError::new("text", "it is empty; allowed: at least one character"));
        }
        check_labels(&labels, terms)?;
        let calibrations = check_calibration(&calibration, labels.len(), terms)?;
        let filled = labels.iter().map(|label| {
            let text = label.template.replacen(PLACE, &text, 1);
            Some(Input { input: Some(Text::Text(text)) })
        });
        let sequences = input::check_all("text", filled, terms)?;
        let labels = labels.into_iter().map(|label| label.name).collect();
        Ok(Self { labels, sequences, fusing, calibrations })
    }

    /// That of a member of whom nothing was learned.
    pub(crate) fn uncalibrated(&self) -> Calibration {
        Calibration { scale: 1.0, biases: vec![0.0; self.labels.len()] }
    }

    /// What goes to the members: each says what it holds the sequences for.
    pub fn plan() -> Plan {
        Plan::Targets
    }
}

impl Costs for Classification {
    fn cost(&self) -> u64 {
        self.sequences.iter().map(|tokens| tokens.len() as u64).sum()
    }
}

fn check_labels(labels: &[v1::Label], terms: &Terms<'_>) -> Result<(), RequestError> {
    let most = terms.limits.max_candidates;
    let given = labels.len();
    if !(2..=most as usize).contains(&given) {
        let message = format!("there are {given}; allowed: 2 to {most} (limits.max_candidates)");
        return Err(RequestError::new("labels", message));
    }
    let (mut names, mut templates) = (BTreeSet::new(), BTreeSet::new());
    for v1::Label { name, template } in labels {
        if name.is_empty() || !names.insert(name) {
            let message = format!("{name:?} is empty or there twice; allowed: a name for each label");
            return Err(RequestError::new("labels.name", message));
        }
        if template.matches(PLACE).count() != 1 {
            let message = format!("{template:?} of {name:?} has to have {PLACE} once, where the text goes");
            return Err(RequestError::new("labels.template", message));
        }
        if !templates.insert(template) {
            let message = format!("{template:?} of {name:?} is that of another label; allowed: one for each");
            return Err(RequestError::new("labels.template", message));
        }
    }
    Ok(())
}

fn check_calibration(
    given: &[LabelCalibration],
    labels: usize,
    terms: &Terms<'_>,
) -> Result<Vec<Calibration>, RequestError> {
    let mut calibrations = vec![None; terms.members.len()];
    for LabelCalibration { member, scale, biases } in given {
        let place = terms
            .members
            .iter()
            .position(|name| name == member)
            .and_then(|place| calibrations.get_mut(place));
        let Some(place) = place.filter(|place| place.is_none()) else {
            let allowed = terms.members.join(", ");
            let message = format!("{member:?} is no member or there twice; allowed: each of {allowed} once");
            return Err(RequestError::new("calibration.member", message));
        };
        let scale = scale.unwrap_or(1.0);
        if !(scale.is_finite() && scale >= 0.0) {
            let message = format!("that of {member:?} is {scale}; allowed: a finite number of at least 0");
            return Err(RequestError::new("calibration.scale", message));
        }
        let biases = if biases.is_empty() { vec![0.0; labels] } else { biases.clone() };
        if biases.len() != labels || biases.iter().any(|bias| !bias.is_finite()) {
            let message = format!(
                "those of {member:?} are {biases:?}; allowed: none, or a finite number for each of {labels} labels"
            );
            return Err(RequestError::new("calibration.biases", message));
        }
        *place = Some(Calibration { scale, biases });
    }
    let uncalibrated = || Calibration { scale: 1.0, biases: vec![0.0; labels] };
    Ok(calibrations.into_iter().map(|calibration| calibration.unwrap_or_else(uncalibrated)).collect())
}
