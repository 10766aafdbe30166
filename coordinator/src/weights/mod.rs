//! The members' weights: as configured, as a request overrides them, or learned for each set of members that may take part.
//! Knows nothing about how an answer is fused or how weights are learned.

mod compiled;
mod file;
mod posterior;
mod weighting;

use std::collections::HashMap;

pub use compiled::{Learned, Mismatch, RuleSets};
pub use file::{LearnedMember, LearnedRule, LearnedSet, LearnedWeights, LearnedWeightsError};
pub use posterior::Posterior;
pub use weighting::Weighting;

/// A weight for each member, in member order: finite, not negative, at least one positive.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    by_member: Vec<f64>,
}

/// Weights that an ensemble can't have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// NaN, infinite or negative.
    #[error("the weight of member {member:?} is {value}; allowed: a finite number of at least 0")]
    Value {
        /// Whose weight.
        member: String,
        /// What was given.
        value: f64,
    },
    /// Nothing can be shared.
    #[error("every weight is 0; allowed: at least one weight above 0")]
    AllZero,
    /// Names that are no member's.
    #[error("{unknown:?} is no member; allowed: a weight for each of {}", .members.join(", "))]
    UnknownMember {
        /// The first of them, by name.
        unknown: String,
        /// The members.
        members: Vec<String>,
    },
    /// Members without a weight.
    #[error("no weight for {}; allowed: a weight for every member, or none at all", .missing.join(", "))]
    MissingMembers {
        /// Members without a weight.
        missing: Vec<String>,
    },
}

impl Weights {
    /// Checks weights given in member order, with the members' names for the message.
    ///
    /// # Errors
    /// A weight that is NaN, infinite or negative; all weights 0, which includes no weights.
    pub fn new<'a>(members: impl IntoIterator<Item = (&'a str, f64)>) -> Result<Self, WeightsError> {
        let mut by_member = Vec::new();
        for (member, value) in members {
            if !value.is_finite() || value < 0.0 {
                let member = member.to_owned();
                return Err(WeightsError::Value { member, value });
            }
            by_member.push(value);
        }
        if by_member.iter().all(|weight| *weight == 0.0) {
            return Err(WeightsError::AllZero);
        }
        Ok(Self { by_member })
    }

    /// Weights by name, for every member and nobody else.
    ///
    /// # Errors
    /// Unknown or missing members, and what [`Weights::new`] refuses.
    pub fn by_name(members: &[String], given: &HashMap<String, f64>) -> Result<Self, WeightsError> {
        let unknown = given.keys().filter(|name| !members.contains(name)).min();
        if let Some(unknown) = unknown {
            return Err(WeightsError::UnknownMember { unknown: unknown.clone(), members: members.to_vec() });
        }
        let missing: Vec<String> =
            members.iter().filter(|name| !given.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(WeightsError::MissingMembers { missing });
        }
        Self::new(members.iter().filter_map(|name| Some((name.as_str(), *given.get(name)?))))
    }

    /// The weight of a member by its place in member order; 0 for a place that is nobody's.
    pub fn of(&self, member: usize) -> f64 {
        self.by_member.get(member).copied().unwrap_or(0.0)
    }

    /// The same weight for each of so many members.
    pub fn equal(members: usize) -> Self {
        Self { by_member: vec![1.0; members] }
    }

    /// The weights of these members.
    pub(crate) fn of_all(&self, members: &[usize]) -> Vec<f64> {
        members.iter().map(|member| self.of(*member)).collect()
    }

    /// All weights, in member order.
    pub fn as_slice(&self) -> &[f64] {
        &self.by_member
    }
}

/// Weights (finite, not negative) scaled so that they sum to one; `None` where nothing is positive.
pub fn shares(weights: &[f64]) -> Option<Vec<f64>> {
    shares_of(weights.iter().copied()).map(Iterator::collect)
}

/// The same without a list.
pub(crate) fn shares_of<W: Iterator<Item = f64> + Clone>(
    weights: W,
) -> Option<impl Iterator<Item = f64> + use<W>> {
    // Scaled by the largest first, since the sum of huge weights is infinite.
    let largest = weights.clone().fold(0.0, f64::max);
    if largest <= 0.0 {
        return None;
    }
    let sum: f64 = weights.clone().map(|weight| weight / largest).sum();
    Some(weights.map(move |weight| weight / largest / sum))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_name(given: &[(&str, f64)]) -> Result<Weights, String> {
        let members = ["alto", "bass"].map(str::to_owned);
        let given = given.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Weights::by_name(&members, &given).map_err(|error| error.to_string())
    }

    #[test]
    fn weights_by_name_come_in_member_order() {
        let weights = by_name(&[("bass", 0.0), ("alto", 2.5)]).unwrap();
        assert_eq!(weights.as_slice(), [2.5, 0.0]);
        assert_eq!((weights.of(0), weights.of(1), weights.of(2)), (2.5, 0.0, 0.0));
    }

    #[test]
    fn weights_that_can_t_be_are_refused() {
        let value = "allowed: a finite number of at least 0";
        for (given, message) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-0.5, "-0.5")] {
            let error = by_name(&[("alto", 1.0), ("bass", given)]).unwrap_err();
            assert_eq!(error, format!("the weight of member \"bass\" is {message}; {value}"));
        }
        assert_eq!(
            by_name(&[("alto", 0.0), ("bass", 0.0)]).unwrap_err(),
            "every weight is 0; allowed: at least one weight above 0"
        );
        assert_eq!(
            by_name(&[("alto", 1.0)]).unwrap_err(),
            "no weight for bass; allowed: a weight for every member, or none at all"
        );
        assert_eq!(
            by_name(&[("alto", 1.0), ("bass", 1.0), ("tuba", 1.0), ("drum", 1.0)]).unwrap_err(),
            "\"drum\" is no member; allowed: a weight for each of alto, bass"
        );
        assert_eq!(Weights::new([]), Err(WeightsError::AllZero));
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_keep_the_proportions(weights in prop::collection::vec(1e-3..1e6_f64, 1..8)) {
            let shares = shares(&weights).unwrap();
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let total: f64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((share - weight / total).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn without_a_positive_weight_there_are_no_shares() {
        assert_eq!(shares(&[]), None);
        assert_eq!(shares(&[0.0, 0.0]), None);
    }
}
