//! The members' weights: as configured or as a request overrides them. Knows nothing about rules or about who answered.

use std::collections::HashMap;

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
            return Err(WeightsError::UnknownMember {
                unknown: unknown.clone(),
                members: members.to_vec(),
            });
        }
        let missing: Vec<String> = members
            .iter()
            .filter(|name| !given.contains_key(*name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(WeightsError::MissingMembers { missing });
        }
        Self::new(
            members
                .iter()
                .filter_map(|name| Some((name.as_str(), *given.get(name)?))),
        )
    }

    /// The weight of a member by its place in member order; 0 for a place that is nobody's.
    pub fn of(&self, member: usize) -> f64 {
        self.by_member.get(member).copied().unwrap_or(0.0)
    }

    /// All weights, in member order.
    pub fn as_slice(&self) -> &[f64] {
        &self.by_member
    }
}

/// Weights (finite, not negative) scaled so that they sum to one; `None` where nothing is positive.
pub fn shares(weights: &[f64]) -> Option<Vec<f64>> {
    // Scaled by the largest first, since the sum of huge weights is infinite.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        return None;
    }
    let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
    Some(weights.iter().map(|weight| weight / largest / sum).collect())
}
