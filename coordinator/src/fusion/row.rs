//! What one member says about one position, checked before anything is made of it. Knows nothing about rules.

use chorus_simd::Norm;

use super::distribution::Distribution;

/// One member's logits for one position, with their norm, which is the member's own: so that whatever it is asked about a
/// position gives the same probabilities, to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    logits: &'a [f32],
    norm: Norm,
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
    #[error("the logit of token {id} is {value}, not a finite number")]
    Logit {
        /// The token.
        id: usize,
        /// What came.
        value: f32,
    },
    /// A norm whose largest logit is another than that of the row.
    #[error("the norm says that the largest logit is {value}, but that is {expected}")]
    Largest {
        /// What came.
        value: f32,
        /// The largest of the logits.
        expected: f32,
    },
    /// A norm that no row of this many tokens has.
    #[error("the norm's log-sum is {value}; allowed: 0 to {most}")]
    LogSum {
        /// What came.
        value: f64,
        /// The logarithm of the vocabulary's size.
        most: f64,
    },
    /// Probabilities that do not sum to one, so that the norm is not that of these logits.
    #[error("its probabilities sum to {mass}; allowed: 1 but for rounding")]
    Mass {
        /// What they sum to.
        mass: f64,
    },
    /// Ids that are not ascending, or not in the vocabulary.
    #[error("token {id} is out of order or not in the vocabulary")]
    Order {
        /// The token.
        id: u32,
    },
    /// Two answers about one distribution that can't both be true.
    #[error("what it says of token {id} contradicts what it said before")]
    Contradiction {
        /// The token.
        id: u32,
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

/// How far rounding may carry a log-probability, a log-sum or a sum of probabilities beyond its bounds: exponentials of f32
/// are summed by members in whatever order suits their devices.
const ROUNDING: f64 = 1e-5;

/// Checks a norm of a row of so many tokens by itself: both halves finite, the log-sum between 0 and the logarithm of the
/// vocabulary's size.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_norm(norm: Norm, vocabulary_size: usize) -> Result<(), RowError> {
    if !norm.largest.is_finite() {
        return Err(RowError::Largest { value: norm.largest, expected: f32::MAX });
    }
    let most = (vocabulary_size as f64).ln();
    // A number that is none is not within either.
    if (-ROUNDING..=most + ROUNDING).contains(&norm.log_sum) {
        return Ok(());
    }
    Err(RowError::LogSum { value: norm.log_sum, most })
}

/// Checks the sum of all probabilities of a row: it is one if the norm is that of the logits. A norm that is not would give
/// the member another weight than it has.
///
/// # Errors
/// It is not one.
pub(crate) fn check_mass(mass: f64) -> Result<(), RowError> {
    if (mass - 1.0).abs() <= ROUNDING { Ok(()) } else { Err(RowError::Mass { mass }) }
}

/// Checks the sum of some of the probabilities of a row, of which so many tokens are left out that have no more than
/// `bound` each.
///
/// # Errors
/// With the others it can't be one.
pub(crate) fn check_partial_mass(mass: f64, left_out: usize, bound: f64) -> Result<(), RowError> {
    // A sum that is no number fails both.
    if mass <= 1.0 + ROUNDING && mass + left_out as f64 * bound >= 1.0 - ROUNDING {
        return Ok(());
    }
    Err(RowError::Mass { mass })
}

impl<'a> Row<'a> {
    /// Checks a row: `vocabulary_size` finite logits, of which the norm names the largest. Whether the norm is that of these
    /// logits shows when their probabilities are computed ([`super::fuse`]).
    ///
    /// ```
    /// use chorus_coordinator::fusion::{Norm, Row};
    ///
    /// let norm = Norm { largest: 0.0, log_sum: 2_f64.ln() };
    /// let row = Row::new(&[0.0, 0.0], norm, 2)?;
    /// assert!((row.log_prob(1).unwrap() - 0.5_f64.ln()).abs() < 1e-6);
    /// assert!(Row::new(&[0.0, f32::NAN], norm, 2).is_err());
    /// # Ok::<(), chorus_coordinator::fusion::RowError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, with the token whose logit is not finite.
    pub fn new(logits: &'a [f32], norm: Norm, vocabulary_size: usize) -> Result<Self, RowError> {
        if logits.len() != vocabulary_size || logits.is_empty() {
            return Err(RowError::Length { expected: vocabulary_size.max(1), got: logits.len() });
        }
        if let Some((id, value)) = logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
            return Err(RowError::Logit { id, value: *value });
        }
        check_norm(norm, vocabulary_size)?;
        let expected = logits.iter().copied().fold(f32::MIN, f32::max);
        if norm.largest != expected {
            return Err(RowError::Largest { value: norm.largest, expected });
        }
        Ok(Self { logits, norm })
    }

    /// A row that was checked before, with its norm.
    pub(crate) fn checked(logits: &'a [f32], norm: Norm) -> Self {
        Self { logits, norm }
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
        self.logits.get(id as usize).map(|logit| self.norm.log_prob(*logit))
    }

    /// The token at `uniform`, in [0, 1), of the member's own cumulative distribution.
    pub(crate) fn draw(&self, uniform: f64) -> u32 {
        u32::try_from(chorus_simd::draw(self.logits, self.norm, uniform)).unwrap_or(u32::MAX)
    }

    /// The member's own distribution.
    pub fn distribution(&self) -> Distribution {
        Distribution::from_log_probs(self.log_probs().collect())
    }

    /// The sum of all probabilities: one, if the norm is that of these logits.
    pub(super) fn mass(&self) -> f64 {
        self.log_probs().map(f64::exp).sum()
    }

    /// None is above 0 by more than rounding: the logit is at most the largest, and the sum at least 1.
    pub(super) fn log_probs(&self) -> impl Iterator<Item = f64> + use<'a> {
        let row = *self;
        row.logits.iter().map(move |logit| row.norm.log_prob(*logit))
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
    let sound = |value: f64| value.is_finite() && value <= ROUNDING;
    match log_probs.iter().enumerate().find(|(_, value)| !sound(**value)) {
        Some((index, value)) => Err(RowError::LogProb { index, value: *value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use chorus_simd::norm;

    use super::*;

    #[test]
    fn a_row_that_is_not_finite_names_the_token() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Row::new(&[0.0, value, f32::NAN], norm(&[0.0; 3]), 3).unwrap_err();
            assert!(matches!(error, RowError::Logit { id: 1, .. }), "{error}");
        }
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let error = Row::new(&[0.0; 3], norm(&[0.0; 3]), 4).unwrap_err();
        assert_eq!(error.to_string(), "3 numbers where 4 were asked for");
        assert!(Row::new(&[], norm(&[0.0]), 0).is_err());
    }

    #[test]
    fn a_norm_that_no_row_has_is_refused() {
        let logits = [1.0, 0.0, 0.0];
        let honest = norm(&logits);
        for log_sum in [-0.1, 1.2, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Row::new(&logits, Norm { log_sum, ..honest }, 3).unwrap_err();
            assert!(matches!(error, RowError::LogSum { .. }), "{error}");
        }
        for largest in [0.999, 1.001, f32::NAN, f32::INFINITY] {
            let error = Row::new(&logits, Norm { largest, ..honest }, 3).unwrap_err();
            assert!(matches!(error, RowError::Largest { .. }), "{error}");
        }
        for logits in [&[1e6_f32, 1e6, -1e6][..], &[f32::MAX, f32::MIN], &[-1e30; 2], &[0.0; 1000]] {
            assert!(Row::new(logits, norm(logits), logits.len()).is_ok());
        }
    }

    #[test]
    fn no_norm_that_passes_makes_more_or_less_of_a_member_than_one() {
        for logits in [&[0.0_f32; 4][..], &[1e6; 4], &[1e30, -1e30], &[3.0, 2.5, -9.0]] {
            let honest = norm(logits);
            let mass = |norm| Row::new(logits, norm, logits.len()).unwrap().mass();
            assert_eq!(check_mass(mass(honest)), Ok(()));
            for off in [2e-5, -2e-5, 0.7, -0.5] {
                let lie = Norm { log_sum: honest.log_sum + off, ..honest };
                let refused = Row::new(logits, lie, logits.len()).map(|row| check_mass(row.mass()));
                assert!(!matches!(refused, Ok(Ok(()))), "{off} of {logits:?}");
            }
        }
        assert!(check_mass(f64::NAN).is_err());
    }

    #[test]
    fn a_part_of_a_row_has_to_leave_room_for_the_rest_and_not_too_much() {
        assert_eq!(check_partial_mass(0.9, 10, 0.01), Ok(()));
        assert_eq!(check_partial_mass(1.0, 0, 0.0), Ok(()));
        assert!(check_partial_mass(1.1, 10, 0.01).is_err());
        assert!(check_partial_mass(0.8, 10, 0.01).is_err());
        assert!(check_partial_mass(f64::NAN, 10, 0.01).is_err());
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
