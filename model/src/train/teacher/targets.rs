//! What a teacher says of a text: a distribution over the next token at every position, as lists of the likeliest tokens
//! or whole. Knows nothing about files, or about who the teacher is.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::SoftTargetsError;
use crate::config::MAX_VOCAB_SIZE;

/// How much of every distribution there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetForm {
    /// So many of the likeliest tokens at most. What is missing to 1 is the mass of all others together.
    TopK(usize),
    /// All tokens.
    Dense,
}

impl fmt::Display for TargetForm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopK(most) => write!(formatter, "top-k {most}"),
            Self::Dense => write!(formatter, "dense"),
        }
    }
}

/// The lowest and the highest temperature of a teacher.
pub const TEMPERATURES: [f64; 2] = [0.1, 20.0];

/// How far probabilities that were computed and rounded in f32 may sum to more than 1, or whole ones to less.
const MASS_TOLERANCE: f64 = 1e-3;
/// What a probability that was rounded to f16 adds to it: half of the distance of the smallest numbers.
const F16_TOLERANCE: f64 = 3e-8;

/// A teacher's distributions over the tokens of a text, one for each position: the row at position i is over what stands
/// at i, given all before it.
///
/// Lists take 8 bytes for each listed token, whole distributions 2 for each token of the vocabulary (f16).
///
/// ```
/// use chorus_model::train::{SoftTargets, TargetForm};
///
/// let mut targets = SoftTargets::new(TargetForm::TopK(2), 5, 1.0)?;
/// targets.push_list(&[3, 0], &[0.5f32.ln(), 0.25f32.ln()])?;
/// assert_eq!(targets.len(), 1);
/// // Log-probabilities that are none are refused.
/// assert!(targets.push_list(&[3, 0], &[0.0, 0.0]).is_err());
/// # Ok::<(), chorus_model::train::SoftTargetsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SoftTargets {
    vocab_size: usize,
    temperature: f64,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq)]
enum Rows {
    /// List i lies before `ends[i]` and after the list before it.
    Lists { most: usize, ends: Vec<usize>, ids: Vec<u32>, probabilities: Vec<f32> },
    /// `[positions, V]`.
    Whole { probabilities: Vec<f16> },
}

/// The distribution at one position.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TargetRow<'a> {
    /// Different ids below V, and as many probabilities.
    List { ids: &'a [u32], probabilities: &'a [f32] },
    /// V probabilities.
    Whole(&'a [f16]),
}

impl SoftTargets {
    /// No position yet, for a vocabulary of `vocab_size` tokens and a teacher whose distributions are at `temperature`:
    /// those that its softmax gives after its logits (for a mixture, its log-probabilities) were divided by it.
    ///
    /// # Errors
    /// A form, a size or a temperature outside its range.
    pub fn new(form: TargetForm, vocab_size: usize, temperature: f64) -> Result<Self, SoftTargetsError> {
        let check = |field, found: f64, [least, largest]: [f64; 2]| match (least..=largest).contains(&found) {
            true => Ok(()),
            false => Err(SoftTargetsError::OutOfRange { field, found, least, largest }),
        };
        check("vocabulary size", vocab_size as f64, [1.0, MAX_VOCAB_SIZE as f64])?;
        check("temperature", temperature, TEMPERATURES)?;
        let rows = match form {
            TargetForm::TopK(most) => {
                check("top-k", most as f64, [1.0, vocab_size as f64])?;
                Rows::Lists { most, ends: Vec::new(), ids: Vec::new(), probabilities: Vec::new() }
            }
            TargetForm::Dense => Rows::Whole { probabilities: Vec::new() },
        };
        Ok(Self { vocab_size, temperature, rows })
    }

    /// Lists or whole distributions.
    #[must_use]
    pub fn form(&self) -> TargetForm {
        match self.rows {
            Rows::Lists { most, .. } => TargetForm::TopK(most),
            Rows::Whole { .. } => TargetForm::Dense,
        }
    }

    /// The number of tokens V.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The temperature at which the teacher gave them.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Lists { ends, .. } => ends.len(),
            Rows::Whole { probabilities } => probabilities.len() / self.vocab_size,
        }
    }

    /// Whether there is no position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a position of which the likeliest tokens are known, in any order, with their log-probabilities (natural).
    ///
    /// # Errors
    /// More than k tokens, unknown or repeated ones, log-probabilities that are none, or a mass above 1.
    pub fn push_list(&mut self, ids: &[u32], log_probs: &[f32]) -> Result<(), SoftTargetsError> {
        let listed: Vec<f32> = log_probs.iter().map(|&log_prob| f64::from(log_prob).exp() as f32).collect();
        self.push_listed(ids, &listed)
    }

    /// Adds a position of which all V log-probabilities (natural) are known, in the order of ids.
    ///
    /// # Errors
    /// Another number of them than V, log-probabilities that are none, or a mass that is not 1.
    pub fn push_dense(&mut self, log_probs: &[f32]) -> Result<(), SoftTargetsError> {
        let whole: Vec<f16> =
            log_probs.iter().map(|&log_prob| f16::from_f64(f64::from(log_prob).exp())).collect();
        self.push_whole(&whole)
    }

    /// As [`Self::push_list`], from probabilities.
    pub(crate) fn push_listed(&mut self, listed: &[u32], values: &[f32]) -> Result<(), SoftTargetsError> {
        let position = self.len();
        let Rows::Lists { most, ends, ids, probabilities } = &mut self.rows else {
            return Err(SoftTargetsError::Form { position, found: "list", expected: "whole" });
        };
        let length = |found, allowed| SoftTargetsError::Length { position, found, allowed };
        if listed.len() > *most {
            return Err(length(listed.len(), format!("{most} at most")));
        }
        if values.len() != listed.len() {
            return Err(length(values.len(), format!("{}, one for each listed token", listed.len())));
        }
        if let Some(&token) = listed.iter().find(|&&token| token as usize >= self.vocab_size) {
            return Err(SoftTargetsError::Token { position, token, vocab_size: self.vocab_size });
        }
        let mut sorted = listed.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SoftTargetsError::Repeated { position, token: pair[0] });
        }
        let mass = mass(position, listed.iter().copied().zip(values.iter().copied().map(f64::from)))?;
        if mass > 1.0 + MASS_TOLERANCE {
            return Err(SoftTargetsError::Mass { position, found: mass, expected: "at most 1" });
        }
        ids.extend_from_slice(listed);
        probabilities.extend_from_slice(values);
        ends.push(ids.len());
        Ok(())
    }

    /// As [`Self::push_dense`], from probabilities.
    pub(crate) fn push_whole(&mut self, values: &[f16]) -> Result<(), SoftTargetsError> {
        let position = self.len();
        let Rows::Whole { probabilities } = &mut self.rows else {
            return Err(SoftTargetsError::Form { position, found: "whole distribution", expected: "lists" });
        };
        if values.len() != self.vocab_size {
            let allowed = format!("{}, one for each token", self.vocab_size);
            return Err(SoftTargetsError::Length { position, found: values.len(), allowed });
        }
        let mass = mass(position, (0..).zip(values.iter().map(|value| value.to_f64())))?;
        if (mass - 1.0).abs() > MASS_TOLERANCE + F16_TOLERANCE * self.vocab_size as f64 {
            return Err(SoftTargetsError::Mass { position, found: mass, expected: "1" });
        }
        probabilities.extend_from_slice(values);
        Ok(())
    }

    /// Adds the positions of `next` after these.
    ///
    /// # Errors
    /// They are of another form, vocabulary or temperature.
    pub fn append(&mut self, next: &Self) -> Result<(), SoftTargetsError> {
        let differ = |field, found: String, expected: String| match found == expected {
            true => Ok(()),
            false => Err(SoftTargetsError::Differ { field, found, expected }),
        };
        differ("vocabulary size", next.vocab_size.to_string(), self.vocab_size.to_string())?;
        differ("temperature", next.temperature.to_string(), self.temperature.to_string())?;
        differ("form", next.form().to_string(), self.form().to_string())?;
        match (&mut self.rows, &next.rows) {
            (
                Rows::Lists { ends, ids, probabilities, .. },
                Rows::Lists { ends: next_ends, ids: next_ids, probabilities: next_probabilities, .. },
            ) => {
                let before = ids.len();
                ends.extend(next_ends.iter().map(|end| before + end));
                ids.extend_from_slice(next_ids);
                probabilities.extend_from_slice(next_probabilities);
            }
            (Rows::Whole { probabilities }, Rows::Whole { probabilities: next }) => {
                probabilities.extend_from_slice(next);
            }
            _ => {}
        }
        Ok(())
    }

    /// The distribution at a position; none beyond the last.
    pub(crate) fn row(&self, position: usize) -> Option<TargetRow<'_>> {
        match &self.rows {
            Rows::Lists { ends, ids, probabilities, .. } => {
                let end = *ends.get(position)?;
                let begin = if position == 0 { 0 } else { *ends.get(position - 1)? };
                let (ids, probabilities) = (ids.get(begin..end)?, probabilities.get(begin..end)?);
                Some(TargetRow::List { ids, probabilities })
            }
            Rows::Whole { probabilities } => {
                let begin = position.checked_mul(self.vocab_size)?;
                probabilities.get(begin..begin.checked_add(self.vocab_size)?).map(TargetRow::Whole)
            }
        }
    }

    /// SHA-256 of everything, in hexadecimal: two teachers that differ in a bit have different ones.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(format!("{} {} {}", self.form(), self.vocab_size, self.temperature));
        for row in (0..).map_while(|position| self.row(position)) {
            let mut bytes: Vec<u8> = Vec::new();
            match row {
                TargetRow::List { ids, probabilities } => {
                    bytes.extend((ids.len() as u64).to_le_bytes());
                    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
                    bytes.extend(probabilities.iter().flat_map(|value| value.to_le_bytes()));
                }
                TargetRow::Whole(values) => {
                    bytes.extend(values.reinterpret_cast().iter().flat_map(|bits: &u16| bits.to_le_bytes()));
                }
            }
            hasher.update(&bytes);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The sum of a row's probabilities, each of which must be one.
fn mass(position: usize, row: impl Iterator<Item = (u32, f64)>) -> Result<f64, SoftTargetsError> {
    let mut mass = 0.0;
    for (token, found) in row {
        if !(0.0..=1.0 + MASS_TOLERANCE).contains(&found) {
            return Err(SoftTargetsError::Probability { position, token, found });
        }
        mass += found;
    }
    Ok(mass)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> SoftTargets {
        SoftTargets::new(TargetForm::TopK(2), 5, 1.0).unwrap()
    }

    fn whole() -> SoftTargets {
        SoftTargets::new(TargetForm::Dense, 4, 1.0).unwrap()
    }

    fn refusal(result: Result<(), SoftTargetsError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn rows_are_what_was_pushed_at_their_positions() {
        let mut first = lists();
        first.push_list(&[3, 0], &[0.5_f32.ln(), 0.25_f32.ln()]).unwrap();
        let mut next = lists();
        next.push_list(&[], &[]).unwrap();
        next.push_list(&[4], &[0.0]).unwrap();
        first.append(&next).unwrap();
        let row = |position| match first.row(position) {
            Some(TargetRow::List { ids, probabilities }) => Some((ids, probabilities)),
            _ => None,
        };
        assert_eq!(first.len(), 3);
        assert_eq!(row(0), Some((&[3, 0][..], &[0.5, 0.25][..])));
        assert_eq!(row(1), Some((&[][..], &[][..])));
        assert_eq!(row(2), Some((&[4][..], &[1.0][..])));
        assert!(first.row(3).is_none() && first.row(usize::MAX).is_none());
        let mut dense = whole();
        dense.push_dense(&[0.5_f32.ln(), 0.5_f32.ln(), f32::NEG_INFINITY, f32::NEG_INFINITY]).unwrap();
        let Some(TargetRow::Whole(row)) = dense.row(0) else { panic!("{dense:?}") };
        assert_eq!(row.to_f32_vec(), [0.5, 0.5, 0.0, 0.0]);
        assert!(dense.row(1).is_none() && dense.row(usize::MAX).is_none());
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_its_position() {
        let mut lists = lists();
        lists.push_list(&[1], &[-1.0]).unwrap();
        let mut push = |ids: &[u32], log_probs: &[f32]| refusal(lists.push_list(ids, log_probs));
        assert_eq!(push(&[5], &[-1.0]), "position 1 lists token 5, but the vocabulary has 5 tokens");
        assert_eq!(push(&[2, 2], &[-1.0, -2.0]), "position 1 lists token 2 twice");
        assert_eq!(
            push(&[2], &[f32::NAN]),
            "position 1 gives token 2 the probability NaN, allowed is 0 to 1"
        );
        assert!(push(&[2], &[5.0]).starts_with("position 1 gives token 2 the probability 148.4"));
        assert_eq!(
            push(&[2, 3], &[0.75_f32.ln(), 0.5_f32.ln()]),
            "the probabilities at position 1 sum to 1.25, expected is at most 1"
        );
        assert_eq!(push(&[1, 2, 3], &[-9.0; 3]), "position 1 has 3 probabilities, allowed are 2 at most");
        assert_eq!(
            push(&[1, 2], &[-9.0]),
            "position 1 has 1 probabilities, allowed are 2, one for each listed token"
        );
        assert_eq!(
            refusal(lists.push_dense(&[-9.0; 5])),
            "position 1 has a whole distribution, but these distributions are lists"
        );
        let mut whole = whole();
        assert!(refusal(whole.push_dense(&[-1.0; 3])).ends_with("allowed are 4, one for each token"));
        assert!(refusal(whole.push_dense(&[-2.0; 4])).ends_with("expected is 1"));
        assert!(refusal(whole.push_list(&[1], &[-1.0])).ends_with("but these distributions are whole"));
        assert_eq!((lists.len(), whole.len()), (1, 0), "what is refused leaves no trace");
    }

    #[test]
    fn what_differs_is_neither_made_nor_appended() {
        let new = |form, vocab_size, temperature| {
            SoftTargets::new(form, vocab_size, temperature).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(new(TargetForm::TopK(6), 5, 1.0), Err("top-k is 6, allowed is 1 to 5".to_owned()));
        assert!(new(TargetForm::TopK(0), 5, 1.0).is_err());
        assert!(new(TargetForm::Dense, 0, 1.0).is_err());
        assert_eq!(
            new(TargetForm::Dense, 5, f64::NAN),
            Err("temperature is NaN, allowed is 0.1 to 20".to_owned())
        );
        for other in [
            SoftTargets::new(TargetForm::TopK(2), 6, 1.0),
            SoftTargets::new(TargetForm::TopK(3), 5, 1.0),
            SoftTargets::new(TargetForm::Dense, 5, 1.0),
            SoftTargets::new(TargetForm::TopK(2), 5, 2.0),
        ] {
            assert!(refusal(lists().append(&other.unwrap())).contains("can't follow those with"));
        }
    }

    #[test]
    fn a_hash_is_of_every_number_and_of_where_it_stands() {
        let hash = |rows: &[(&[u32], &[f32])]| {
            let mut targets = lists();
            rows.iter().for_each(|(ids, log_probs)| targets.push_list(ids, log_probs).unwrap());
            targets.hash()
        };
        let first: [(&[u32], &[f32]); 2] = [(&[1], &[-1.0]), (&[], &[])];
        assert_eq!(hash(&first), hash(&first));
        let others: [[(&[u32], &[f32]); 2]; 3] = [
            [(&[2], &[-1.0]), (&[], &[])],
            [(&[1], &[-1.000_001]), (&[], &[])],
            [(&[], &[]), (&[1], &[-1.0])],
        ];
        others.iter().for_each(|other| assert_ne!(hash(other), hash(&first)));
        assert_ne!(lists().hash(), SoftTargets::new(TargetForm::TopK(2), 5, 1.5).unwrap().hash());
    }
}
