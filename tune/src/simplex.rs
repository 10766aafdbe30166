//! Points of the simplex: weights of at least 0 that sum to one. Knows nothing about what they weigh.

/// Weights that can't be shares of one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// As many weights as members are needed.
    #[error("there are {given} weights for {members} members; allowed: one weight for each member")]
    Count {
        /// How many were given.
        given: usize,
        /// How many members there are.
        members: usize,
    },
    /// NaN, infinite or negative.
    #[error("the weight of member {member} is {value}; allowed: a finite number of at least 0")]
    Value {
        /// Whose weight: the place in member order, from 0.
        member: usize,
        /// What was given.
        value: f64,
    },
    /// Nothing can be shared.
    #[error("every weight is 0; allowed: at least one weight above 0")]
    AllZero,
}

/// Weights (one for each of `members`, finite, at least 0, not all 0) scaled so that they sum to one.
///
/// # Errors
/// Another number of weights, a weight that is NaN, infinite or negative, all of them 0.
pub fn shares(weights: &[f64], members: usize) -> Result<Vec<f64>, WeightsError> {
    if weights.len() != members {
        return Err(WeightsError::Count { given: weights.len(), members });
    }
    for (member, &value) in weights.iter().enumerate() {
        if !value.is_finite() || value < 0.0 {
            return Err(WeightsError::Value { member, value });
        }
    }
    // Scaled by the largest first, since the sum of huge weights is infinite.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        return Err(WeightsError::AllZero);
    }
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight / largest).collect();
    normalize(&mut shares);
    Ok(shares)
}

/// The same share for each of `members`.
pub fn equal_shares(members: usize) -> Vec<f64> {
    vec![1.0 / members as f64; members]
}

/// Scales numbers of a positive, finite sum so that they sum to one.
pub(crate) fn normalize(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
}

/// A point moved by this share of the way towards another one.
pub(crate) fn towards(weights: &[f64], other: &[f64], share: f64) -> Vec<f64> {
    weights.iter().zip(other).map(|(weight, other)| (1.0 - share) * weight + share * other).collect()
}

/// A point moved by this share of the way towards equal shares, so that no weight is 0.
pub(crate) fn towards_equal(weights: &[f64], share: f64) -> Vec<f64> {
    towards(weights, &equal_shares(weights.len()), share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_that_can_t_be_are_refused() {
        let message = |weights: &[f64]| shares(weights, 2).unwrap_err().to_string();
        assert_eq!(message(&[1.0]), "there are 1 weights for 2 members; allowed: one weight for each member");
        assert_eq!(message(&[0.0, 0.0]), "every weight is 0; allowed: at least one weight above 0");
        for value in [f64::NAN, f64::INFINITY, -0.5] {
            let expected =
                format!("the weight of member 1 is {value}; allowed: a finite number of at least 0");
            assert_eq!(message(&[1.0, value]), expected);
        }
    }

    #[test]
    fn huge_weights_are_shared() {
        assert_eq!(shares(&[f64::MAX, f64::MAX, 0.0], 3).unwrap(), [0.5, 0.5, 0.0]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_keep_the_proportions(weights in prop::collection::vec(1e-3..1e6_f64, 1..9)) {
            let shares = shares(&weights, weights.len()).unwrap();
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let total: f64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((share - weight / total).abs() < 1e-12);
            }
            let moved = towards_equal(&shares, 0.1);
            prop_assert!((moved.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(moved.iter().all(|weight| *weight >= 0.1 / weights.len() as f64));
        }
    }
}
