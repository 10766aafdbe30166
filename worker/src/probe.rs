//! The golden sequence: a few tokens whose distributions are known, so that what a device answers about them tells
//! whether it computes.
//!
//! Pure. Knows nothing about when it runs, or what follows.

use std::fmt;

use chorus_simd::{Norm, Reduced, Reduction, norm};
use thiserror::Error;

use crate::predictor::{Prediction, Predictor, Row, Want, guard};

/// Tokens of the sequence. It is read twice side by side, so that a probe is 16 tokens, in one forward.
const TOKENS: usize = 8;

/// A sequence and what a device must answer about it.
#[derive(Debug, Clone)]
pub(crate) struct Golden {
    tokens: Vec<u32>,
    vocabulary_size: usize,
    expected: Answers,
    agreement: Agreement,
}

/// The distributions before each token and after the last one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answers {
    /// `[positions, vocabulary]`.
    logits: Vec<f32>,
    norms: Vec<Norm>,
}

/// How close an answer must be to what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Agreement {
    /// Off by this share of the row's largest logit, or of 1 where all are smaller.
    Within(f64),
    /// The same bits.
    Same,
}

/// What is wrong with a device.
#[derive(Debug, Clone, PartialEq, Error)]
pub(crate) enum Fault {
    #[error("{reason} (at the golden sequence)")]
    Failed { reason: String },
    #[error("it answered {found} distributions of {positions} of the golden sequence")]
    Incomplete { found: usize, positions: usize },
    #[error("its logits are not finite at position {position} of the golden sequence")]
    NotFinite { position: usize },
    #[error(
        "at position {position} of the golden sequence {what} is {found}, but {expected} is expected, at most {allowed} off"
    )]
    Off { position: usize, what: Quantity, found: f64, expected: f64, allowed: f64 },
    #[error(
        "at position {position} of the golden sequence {what} is {found}, but was {expected} at the start, and has to be the same \
         to the bit"
    )]
    Changed { position: usize, what: Quantity, found: f64, expected: f64 },
}

/// Of what a number is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Of a token.
    Logit(usize),
    /// A part of the norm.
    Largest,
    /// The other part.
    LogSum,
    /// Both together.
    LogSumExp,
}

impl Golden {
    /// The sequence for a vocabulary of so many tokens: some from all over it.
    pub(crate) fn tokens(vocabulary_size: usize) -> Vec<u32> {
        let spread = (0..TOKENS).map(|index| (2 * index + 1) * vocabulary_size / (2 * TOKENS));
        spread.filter_map(|token| u32::try_from(token).ok()).collect()
    }

    /// Expects the logits `[tokens + 1, vocabulary]` of a reference, of which a device may be off by a share of the largest
    /// one.
    pub(crate) fn near(tokens: Vec<u32>, reference: Vec<f32>, tolerance: f64) -> Self {
        let vocabulary_size = reference.len() / (tokens.len() + 1);
        let norms = reference.chunks_exact(vocabulary_size.max(1)).map(norm).collect();
        let expected = Answers { logits: reference, norms };
        Self { tokens, vocabulary_size, expected, agreement: Agreement::Within(tolerance) }
    }

    /// The same sequence, of which a device has to answer from now on what it has answered, to the bit.
    pub(crate) fn pinned(self, answers: Answers) -> Self {
        Self { expected: answers, agreement: Agreement::Same, ..self }
    }

    /// Has the device read the sequence.
    ///
    /// # Errors
    /// What is wrong with its answers: of several things the one at the first position.
    pub(crate) fn probe<P: Predictor>(&self, predictor: &mut P) -> Result<Answers, Fault> {
        let positions = self.tokens.len() + 1;
        let mut answered: Vec<Option<(Vec<f32>, Norm)>> = vec![None; positions];
        let computed = guard(|| {
            let (mut before, mut after) = (predictor.fresh_state()?, predictor.fresh_state()?);
            let mut rows = [
                Row { state: &mut before, tokens: &self.tokens, want: Want::Each, reduction: Reduction::Row },
                Row { state: &mut after, tokens: &self.tokens, want: Want::Next, reduction: Reduction::Row },
            ];
            predictor.forward(&mut rows, &mut |Prediction { row, offset, norm, found, .. }| {
                let position = if row == 0 { offset } else { self.tokens.len() };
                let logits = match found {
                    Reduced::Row(logits) => logits.to_vec(),
                    // All that is known of a row that is not finite.
                    _ if !norm.is_finite() => vec![f32::NAN; self.vocabulary_size],
                    _ => return,
                };
                if let Some(place) = answered.get_mut(position) {
                    *place = Some((logits, norm));
                }
            })
        });
        computed.map_err(|failure| Fault::Failed { reason: failure.message })?;
        let is_whole = |(logits, _): &&(Vec<f32>, Norm)| logits.len() == self.vocabulary_size;
        let found = answered.iter().flatten().filter(is_whole).count();
        if found < positions {
            return Err(Fault::Incomplete { found, positions });
        }
        let mut answers =
            Answers { logits: Vec::with_capacity(positions * self.vocabulary_size), norms: vec![] };
        for (position, (logits, norm)) in answered.into_iter().flatten().enumerate() {
            self.check(position, &logits, norm)?;
            answers.logits.extend(logits);
            answers.norms.push(norm);
        }
        Ok(answers)
    }

    /// The largest share of a row's largest logit by which these answers are off, or of 1 where all are smaller.
    #[cfg(test)]
    pub(crate) fn furthest(&self, answers: &Answers) -> f64 {
        let rows = self.expected.logits.chunks_exact(self.vocabulary_size);
        let shares = rows.zip(answers.logits.chunks_exact(self.vocabulary_size)).flat_map(|(row, other)| {
            let share = |(one, other): (&f32, &f32)| f64::from((one - other).abs());
            row.iter().zip(other).map(share).map(|off| off / largest_magnitude(row).max(1.0))
        });
        shares.fold(0.0, f64::max)
    }

    fn check(&self, position: usize, logits: &[f32], norm: Norm) -> Result<(), Fault> {
        if !norm.is_finite() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Fault::NotFinite { position });
        }
        let rows = self.expected.logits.chunks_exact(self.vocabulary_size.max(1));
        let expected = rows.zip(&self.expected.norms).nth(position);
        let Some((expected, expected_norm)) = expected else {
            return Ok(());
        };
        let logits = logits.iter().zip(expected).enumerate().map(|(token, (&found, &expected))| {
            (Quantity::Logit(token), f64::from(found), f64::from(expected))
        });
        match self.agreement {
            Agreement::Within(share) => {
                let allowed = share * largest_magnitude(expected).max(1.0);
                // It moves by no more than the logits do.
                let sum = (Quantity::LogSumExp, norm.log_sum_exp(), expected_norm.log_sum_exp());
                // A reference that is not finite agrees with nothing.
                let agrees =
                    |found: f64, expected: f64| allowed.is_finite() && (found - expected).abs() <= allowed;
                let off = logits.chain([sum]).find(|(_, found, expected)| !agrees(*found, *expected));
                off.map_or(Ok(()), |(what, found, expected)| {
                    Err(Fault::Off { position, what, found, expected, allowed })
                })
            }
            Agreement::Same => {
                let norms = [
                    (Quantity::Largest, f64::from(norm.largest), f64::from(expected_norm.largest)),
                    (Quantity::LogSum, norm.log_sum, expected_norm.log_sum),
                ];
                let mut numbers = logits.chain(norms);
                let changed = numbers.find(|(_, found, expected)| found.to_bits() != expected.to_bits());
                changed.map_or(Ok(()), |(what, found, expected)| {
                    Err(Fault::Changed { position, what, found, expected })
                })
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logit(token) => write!(formatter, "the logit of token {token}"),
            Self::Largest => formatter.write_str("the largest logit"),
            Self::LogSum => formatter.write_str("the log-sum-exp, less the largest logit,"),
            Self::LogSumExp => formatter.write_str("the log-sum-exp"),
        }
    }
}

fn largest_magnitude(row: &[f32]) -> f64 {
    row.iter().map(|logit| f64::from(logit.abs())).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_device::{Manner, ScriptedDevice, VOCABULARY};

    fn golden() -> Golden {
        let tokens = Golden::tokens(VOCABULARY);
        let reference = ScriptedDevice::reference(&tokens);
        Golden::near(tokens, reference, 1e-3)
    }

    fn fault_of(golden: &Golden, manner: Manner) -> Fault {
        let (mut device, manners) = ScriptedDevice::new();
        manners.set(manner);
        golden.probe(&mut device).unwrap_err()
    }

    #[test]
    fn its_tokens_are_spread_over_the_vocabulary() {
        assert_eq!(Golden::tokens(1600), [100, 300, 500, 700, 900, 1100, 1300, 1500]);
        for size in 1..50 {
            assert!(Golden::tokens(size).iter().all(|token| (*token as usize) < size), "{size}");
        }
    }

    #[test]
    fn a_device_that_computes_passes_and_repeats_itself() {
        let (mut device, _) = ScriptedDevice::new();
        let golden = golden();
        let answers = golden.probe(&mut device).unwrap();
        assert_eq!(answers.logits, golden.expected.logits);
        let pinned = golden.pinned(answers.clone());
        assert_eq!(pinned.probe(&mut device), Ok(answers));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_was_expected() {
        let golden = golden();
        let position = 3;
        let expected = f64::from(golden.expected.logits[position * VOCABULARY + 2]);
        let fault = fault_of(&golden, Manner::Off { position, token: 2, by: 0.5 });
        let Fault::Off { position: 3, what: Quantity::Logit(2), found, expected: wanted, allowed } = fault
        else {
            panic!("{fault}");
        };
        assert!((found - expected - 0.5).abs() < 1e-6 && wanted == expected && allowed < 0.02);
        assert!(
            fault.to_string().starts_with("at position 3 of the golden sequence the logit of token 2 is "),
            "{fault}"
        );
        assert_eq!(fault_of(&golden, Manner::NotFinite), Fault::NotFinite { position: 0 });
        assert_eq!(fault_of(&golden, Manner::Mute), Fault::Incomplete { found: 0, positions: TOKENS + 1 });
        assert_eq!(
            fault_of(&golden, Manner::Error).to_string(),
            "the model failed: scripted error (at the golden sequence)"
        );
        assert!(fault_of(&golden, Manner::Panic).to_string().contains("panicked"));
        let fault = fault_of(&golden, Manner::WrongNorm);
        assert!(matches!(fault, Fault::Off { position: 0, what: Quantity::LogSumExp, .. }), "{fault}");
    }

    #[test]
    fn a_little_off_passes_once_and_not_where_the_bits_are_known() {
        let golden = golden();
        let (mut device, manners) = ScriptedDevice::new();
        let pinned = golden.clone().pinned(golden.probe(&mut device).unwrap());
        manners.set(Manner::Off { position: 8, token: 0, by: 1e-5 });
        golden.probe(&mut device).unwrap();
        let fault = pinned.probe(&mut device).unwrap_err();
        assert!(matches!(fault, Fault::Changed { position: 8, what: Quantity::Logit(0), .. }), "{fault}");
        assert!(fault.to_string().contains("but was "), "{fault}");
        manners.set(Manner::WrongNorm);
        let fault = pinned.probe(&mut device).unwrap_err();
        assert!(matches!(fault, Fault::Changed { position: 0, what: Quantity::LogSum, .. }), "{fault}");
    }

    #[test]
    fn a_reference_that_is_not_finite_agrees_with_nothing() {
        let tokens = Golden::tokens(VOCABULARY);
        for value in [f32::NAN, f32::INFINITY] {
            let mut reference = ScriptedDevice::reference(&tokens);
            reference[0] = value;
            let (mut device, _) = ScriptedDevice::new();
            let fault = Golden::near(tokens.clone(), reference, 1e-3).probe(&mut device).unwrap_err();
            assert!(matches!(fault, Fault::Off { position: 0, .. }), "{fault}");
        }
    }
}
