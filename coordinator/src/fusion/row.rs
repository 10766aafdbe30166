//! What one member says about one position, checked before anything is made of it. Knows nothing about rules.

use super::distribution::Distribution;

/// One member's logits for one position, with their log-sum-exp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    logits: &'a [f32],
    norm: Norm,
}

/// The log-sum-exp of a row in two parts, which would lose the smaller one in their sum where logits are huge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    /// The largest logit.
    largest: f64,
    /// ln Σ exp(logit - largest), between 0 and ln(vocabulary size).
    log_sum: f64,
}

/// An answer that no honest member gives.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum RowError {
    /// Too many or too few numbers.
    #[error("{got} numbers where {expected} were asked for")]
    Length {
        /// Numbers that were asked for, at least 1.
        expected: usize,
        /// Numbers that came.
        got: usize,
    },
    /// A logit that is NaN or infinite.
    #[error("the logit of token {index} is {value}, not a finite number")]
    Logit {
        /// The token's id.
        index: usize,
        /// What came.
        value: f32,
    },
    /// A log-sum-exp that is not that of these logits.
    #[error("the log-sum-exp is {value}; that of these logits is {expected}")]
    LogSumExp {
        /// What came.
        value: f32,
        /// ln Σ exp(logit).
        expected: f64,
    },
    /// A log-probability that is NaN, infinite or positive.
    #[error("the log-probability at position {index} is {value}; allowed: finite and at most 0")]
    LogProb {
        /// Position in the list.
        index: usize,
        /// What came.
        value: f64,
    },
}

/// How far rounding in f32 may carry a log-sum-exp of this size, or a log-probability, beyond its bounds.
fn rounding(value: f64) -> f64 {
    1e-3 + 1e-5 * value.abs()
}

impl<'a> Row<'a> {
    /// Checks a row: `vocabulary_size` finite logits, and the log-sum-exp that these logits have, but for rounding. What
    /// is used is computed here: a wrong one would give the member another weight than it has, up to the size of the
    /// vocabulary times as much, and at large logits even f32's rounding of it is a factor.
    ///
    /// ```
    /// use chorus_coordinator::fusion::Row;
    ///
    /// let row = Row::new(&[0.0, 0.0], 2_f32.ln(), 2)?;
    /// assert!((row.log_prob(1).unwrap() - 0.5_f64.ln()).abs() < 1e-6);
    /// assert!(Row::new(&[0.0, f32::NAN], 2_f32.ln(), 2).is_err());
    /// # Ok::<(), chorus_coordinator::fusion::RowError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, with the index of a logit that is not finite.
    pub fn new(logits: &'a [f32], log_sum_exp: f32, vocabulary_size: usize) -> Result<Self, RowError> {
        if logits.len() != vocabulary_size || logits.is_empty() {
            return Err(RowError::Length { expected: vocabulary_size.max(1), got: logits.len() });
        }
        if let Some((index, value)) = logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
            return Err(RowError::Logit { index, value: *value });
        }
        let norm = Norm::of(logits);
        let expected = norm.largest + norm.log_sum;
        // A difference that is no number is no small one either.
        let off = (expected - f64::from(log_sum_exp)).abs();
        if off.is_nan() || off > rounding(expected) {
            return Err(RowError::LogSumExp { value: log_sum_exp, expected });
        }
        Ok(Self { logits, norm })
    }

    /// A row that was checked before, with the norm that was computed then.
    pub(crate) fn checked(logits: &'a [f32], norm: Norm) -> Self {
        Self { logits, norm }
    }

    pub(crate) fn norm(&self) -> Norm {
        self.norm
    }

    /// How many tokens the row covers, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a row is never empty")]
    pub fn len(&self) -> usize {
        self.logits.len()
    }

    /// The logits.
    pub fn logits(&self) -> &'a [f32] {
        self.logits
    }

    /// The member's own log-probability of a token; `None` outside the vocabulary.
    pub fn log_prob(&self, id: u32) -> Option<f64> {
        self.logits.get(id as usize).map(|logit| self.log_prob_of(*logit))
    }

    /// The member's own distribution.
    pub fn distribution(&self) -> Distribution {
        Distribution::from_log_probs(self.log_probs().collect())
    }

    pub(super) fn log_probs(&self) -> impl Iterator<Item = f64> + use<'a> {
        let row = *self;
        row.logits.iter().map(move |logit| row.log_prob_of(*logit))
    }

    /// At most 0, since the logit is at most the largest and the sum at least 1.
    fn log_prob_of(&self, logit: f32) -> f64 {
        f64::from(logit) - self.norm.largest - self.norm.log_sum
    }
}

impl Norm {
    fn of(logits: &[f32]) -> Self {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
        Self { largest: f64::from(largest), log_sum: sum.ln() }
    }
}

/// Checks a member's log-probabilities of given tokens: `tokens` of them, finite, none positive.
///
/// # Errors
/// What is wrong, with the position of the number.
pub fn check_targets(log_probs: &[f64], tokens: usize) -> Result<(), RowError> {
    if log_probs.len() != tokens {
        return Err(RowError::Length { expected: tokens, got: log_probs.len() });
    }
    let sound = |value: f64| value.is_finite() && value <= rounding(0.0);
    match log_probs.iter().enumerate().find(|(_, value)| !sound(**value)) {
        Some((index, value)) => Err(RowError::LogProb { index, value: *value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_not_finite_names_the_token() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Row::new(&[0.0, value, f32::NAN], 1.1, 3).unwrap_err();
            assert!(matches!(error, RowError::Logit { index: 1, .. }), "{error}");
        }
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let error = Row::new(&[0.0; 3], 1.1, 4).unwrap_err();
        assert_eq!(error.to_string(), "3 numbers where 4 were asked for");
        assert!(Row::new(&[], 0.0, 0).is_err());
    }

    #[test]
    fn a_log_sum_exp_that_belongs_to_no_such_row_is_refused() {
        for lie in [0.9, 1.0, 1.5, 1.6, 3.2, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Row::new(&[1.0, 0.0, 0.0], lie, 3).unwrap_err();
            assert!(matches!(error, RowError::LogSumExp { .. }), "{error}");
        }
        assert!(Row::new(&[1.0, 0.0, 0.0], 1.551_445, 3).is_ok());
        // Large logits, whose log-sum-exp is rounded to 0.06 in f32, and small ones.
        assert!(Row::new(&[1e6, 1e6, -1e6], 1e6 + 0.693, 3).is_ok());
        assert!(Row::new(&[f32::MAX, f32::MIN], f32::MAX, 2).is_ok());
        assert!(Row::new(&[-1e30; 2], -1e30, 2).is_ok());
    }

    #[test]
    fn no_log_sum_exp_that_passes_makes_more_of_a_member_than_one() {
        for (base, lie) in [(0.0, 4_f32.ln() - 9e-4), (1e6, 1e6 - 8.0), (1e30, 0.999_995e30)] {
            let logits = [base; 4];
            let row = Row::new(&logits, lie, 4).unwrap();
            let sum: f64 = (0..4).map(|id| row.log_prob(id).unwrap().exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{base} {lie}: {sum}");
        }
    }

    #[test]
    fn targets_are_finite_and_not_positive() {
        assert_eq!(check_targets(&[-1.0, 0.0, 1e-7], 3), Ok(()));
        assert!(matches!(check_targets(&[-1.0], 2), Err(RowError::Length { .. })));
        for lie in [f64::NAN, f64::NEG_INFINITY, 0.5] {
            let error = check_targets(&[-1.0, lie], 2).unwrap_err();
            assert!(matches!(error, RowError::LogProb { index: 1, .. }), "{error}");
        }
    }
}
