//! What one member says about one position, checked before anything is made of it. Knows nothing about rules.

use chorus_simd::{Norm, Values};

use super::leading::{Candidate, leading};

/// One member's logits for one position, with their norm, which is the member's own: so that whatever it is asked about a
/// position gives the same probabilities, to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    logits: Values<'a>,
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
    pub fn new(logits: impl Into<Values<'a>>, norm: Norm, vocabulary_size: usize) -> Result<Self, RowError> {
        let logits = logits.into();
        if logits.len() != vocabulary_size || logits.is_empty() {
            return Err(RowError::Length { expected: vocabulary_size.max(1), got: logits.len() });
        }
        let expected = chorus_simd::largest(logits);
        if !expected.is_finite()
            && let Some((id, value)) = logits.iter().enumerate().find(|(_, logit)| !logit.is_finite())
        {
            return Err(RowError::Logit { id, value });
        }
        check_norm(norm, vocabulary_size)?;
        if norm.largest != expected {
            return Err(RowError::Largest { value: norm.largest, expected });
        }
        Ok(Self { logits, norm })
    }

    /// A row that was checked before, with its norm.
    pub(crate) fn checked(logits: Values<'a>, norm: Norm) -> Self {
        Self { logits, norm }
    }

    /// How many tokens the row covers, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a row is never empty")]
    pub fn len(&self) -> usize {
        self.logits.len()
    }

    /// The logits.
    pub fn logits(&self) -> Values<'a> {
        self.logits
    }

    /// Their norm.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// The member's own log-probability of a token; `None` outside the vocabulary.
    pub fn log_prob(&self, id: u32) -> Option<f64> {
        self.logits.get(id as usize).map(|logit| self.norm.log_prob(logit))
    }

    /// The member's own `n` likeliest tokens, likeliest first, equal ones by lower id; all of them where there are fewer.
    pub fn top(&self, n: usize) -> Vec<Candidate> {
        // A log-probability never falls where a logit rises, so whatever is to take a place needs a higher logit.
        let next = |start, last: Option<(u32, f32)>| match last {
            Some((_, logit)) => chorus_simd::find_above(self.logits, start, logit),
            None => (start < self.logits.len()).then_some(start),
        };
        let log_prob = |id: u32| self.log_prob(id).unwrap_or(f64::NEG_INFINITY);
        let key = |place: usize| (0, self.logits.get(place).unwrap_or(f32::MIN));
        leading(n, next, key, log_prob).into_iter().map(Candidate::from).collect()
    }

    /// The token at `uniform`, in [0, 1), of the member's own cumulative distribution.
    pub(crate) fn draw(&self, uniform: f64) -> u32 {
        u32::try_from(chorus_simd::draw(self.logits, self.norm, uniform)).unwrap_or(u32::MAX)
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
    use proptest::prelude::*;

    use super::*;
    use crate::fusion::{Fusion, Scratch, fuse};

    proptest! {
        #[test]
        fn the_top_is_that_of_a_sorted_row(
            logits in prop::collection::vec(
                prop_oneof![3 => (-3_i8..3).prop_map(f32::from), 1 => Just(1e-30_f32), 1 => -9.0_f32..9.0], 1..300,
            ),
            n in 0..320_usize,
        ) {
            let row = Row::new(&logits, norm(&logits), logits.len()).unwrap();
            let mut sorted: Vec<(f64, u32)> = (0..logits.len() as u32).map(|id| (row.log_prob(id).unwrap(), id)).collect();
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            sorted.truncate(n);
            let top: Vec<(f64, u32)> = row.top(n).iter().map(|candidate| (candidate.log_prob, candidate.id)).collect();
            prop_assert_eq!(top, sorted);
        }
    }

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
        let fusion = Fusion::default();
        for logits in [&[0.0_f32; 4][..], &[1e6; 4], &[1e30, -1e30], &[3.0, 2.5, -9.0]] {
            let honest = norm(logits);
            let fused = |norm| {
                let row = Row::new(logits, norm, logits.len()).ok()?;
                fuse(&fusion, &[(1.0, row)], &mut Scratch::default()).ok().map(|_| ())
            };
            assert_eq!(fused(honest), Some(()));
            for off in [2e-5, -2e-5, 0.7, -0.5] {
                let lie = Norm { log_sum: honest.log_sum + off, ..honest };
                assert_eq!(fused(lie), None, "{off} of {logits:?}");
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
