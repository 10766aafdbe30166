//! [`Tops`]: the likeliest tokens of rows, as one member answered them, owned and checked.
//!
//! Knows nothing about the wire or about rules.

use std::ops::Range;

use crate::fusion::{Norm, RowError, check_norm, check_partial_mass};

/// The likeliest tokens of the rows of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tops {
    ids: Vec<u32>,
    logits: Vec<f32>,
    norms: Vec<Norm>,
    /// Where each row ends in `ids` and `logits`.
    ends: Vec<usize>,
    /// The logit of each row's target, where targets were asked about.
    targets: Vec<f32>,
    shape: TopShape,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopShape {
    /// Rows.
    pub rows: usize,
    /// Tokens of each row, at least.
    pub k: usize,
    /// Beyond them only tokens whose log-probability is above this, but all of those.
    pub log_threshold: Option<f64>,
    /// Tokens of the vocabulary.
    pub vocabulary_size: usize,
    /// Whether each row comes with the logit of its target.
    pub targets: bool,
}

/// Unchecked parts of an answer, as they travel.
#[derive(Debug, Clone, Default)]
pub struct TopParts {
    /// Tokens of each row.
    pub counts: Vec<u32>,
    /// Their ids, row after row.
    pub ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// One for each row.
    pub norms: Vec<Norm>,
    /// One for each row where targets were asked about, else none.
    pub targets: Vec<f32>,
}

/// The likeliest tokens of one row: a leading part of it, in the order of probability and then of ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top<'a> {
    /// Ascending.
    pub ids: &'a [u32],
    /// Their logits.
    pub logits: &'a [f32],
    /// Of the whole row.
    pub norm: Norm,
    /// The logit of the row's target, where it was asked about.
    pub target: Option<f32>,
    /// The log-probability that no token beyond these exceeds; minus infinity where there is none.
    pub bound: f64,
}

impl Tops {
    /// Checks an answer as far as it can be without the rest of the rows: the counts, ascending ids of the vocabulary,
    /// logits that are finite and not above the largest, which is among them, and room for the probabilities of the rest.
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(parts: TopParts, shape: TopShape) -> Result<Self, RowError> {
        let TopParts { counts, ids, logits, norms, targets } = parts;
        let mut end = 0_usize;
        let ends: Vec<usize> = counts
            .iter()
            .map(|count| {
                end = end.saturating_add(*count as usize);
                end
            })
            .collect();
        same(counts.len(), shape.rows)?;
        same(norms.len(), shape.rows)?;
        same(targets.len(), if shape.targets { shape.rows } else { 0 })?;
        same(ids.len(), end)?;
        same(logits.len(), end)?;
        let tops = Self { ids, logits, norms, ends, targets, shape };
        for index in 0..shape.rows {
            check(&tops.row(index)?, &shape)?;
        }
        Ok(tops)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One row.
    ///
    /// # Errors
    /// There is no such row.
    pub fn row(&self, index: usize) -> Result<Top<'_>, RowError> {
        let missing = RowError::Length { expected: index + 1, got: self.ends.len() };
        let tokens = self.tokens_of(index).ok_or(missing)?;
        let (ids, logits) = (self.ids.get(tokens.clone()), self.logits.get(tokens));
        match (ids, logits, self.norms.get(index)) {
            (Some(ids), Some(logits), Some(norm)) => Ok(Top {
                ids,
                logits,
                norm: *norm,
                target: self.targets.get(index).copied(),
                bound: self.bound(logits, *norm),
            }),
            _ => Err(missing),
        }
    }

    fn tokens_of(&self, index: usize) -> Option<Range<usize>> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        Some(start..*self.ends.get(index)?)
    }

    fn bound(&self, logits: &[f32], norm: Norm) -> f64 {
        if logits.len() == self.shape.vocabulary_size {
            return f64::NEG_INFINITY;
        }
        let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
        let of_last = if logits.is_empty() { 0.0 } else { norm.log_prob(least) };
        self.shape.log_threshold.map_or(of_last, |threshold| of_last.min(threshold))
    }
}

fn same(got: usize, expected: usize) -> Result<(), RowError> {
    if got == expected { Ok(()) } else { Err(RowError::Length { expected, got }) }
}

fn check(top: &Top<'_>, shape: &TopShape) -> Result<(), RowError> {
    let Top { ids, logits, norm, .. } = *top;
    let size = shape.vocabulary_size;
    if let Some([_, id]) = ids.windows(2).find(|pair| pair.first() >= pair.last()) {
        return Err(RowError::Order { id: *id });
    }
    if let Some(id) = ids.last().filter(|id| **id as usize >= size) {
        return Err(RowError::Order { id: *id });
    }
    check_norm(norm, size)?;
    for (id, logit) in ids.iter().zip(logits) {
        check_logit(*id, *logit, norm)?;
    }
    check_count(top, shape)?;
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    if !logits.is_empty() && largest != norm.largest {
        return Err(RowError::Largest { value: norm.largest, expected: largest });
    }
    if let Some(target) = top.target {
        check_logit(u32::MAX, target, norm)?;
    }
    let mass = logits.iter().map(|logit| norm.log_prob(*logit).exp()).sum();
    check_partial_mass(mass, size - ids.len(), top.bound.exp())
}

/// Checks one logit of a row with this norm.
///
/// # Errors
/// It is not finite, or above the largest.
pub(crate) fn check_logit(id: u32, logit: f32, norm: Norm) -> Result<(), RowError> {
    if !logit.is_finite() {
        return Err(RowError::Logit { id: id as usize, value: logit });
    }
    if logit > norm.largest {
        return Err(RowError::Largest { value: norm.largest, expected: logit });
    }
    Ok(())
}

/// `k` tokens, or more where those are all above the threshold.
fn check_count(top: &Top<'_>, shape: &TopShape) -> Result<(), RowError> {
    let (got, expected) = (top.ids.len(), shape.k.min(shape.vocabulary_size));
    let above = |threshold| top.logits.iter().all(|logit| top.norm.log_prob(*logit) > threshold);
    if got == expected || (got > expected && shape.log_threshold.is_some_and(above)) {
        return Ok(());
    }
    Err(RowError::Length { expected, got })
}

#[cfg(test)]
mod tests {
    use chorus_simd::norm;

    use super::*;

    const ROW: [f32; 5] = [2.0, -1.0, 3.0, 0.0, 2.0];
    const SHAPE: TopShape =
        TopShape { rows: 1, k: 2, log_threshold: None, vocabulary_size: 5, targets: false };

    fn parts(ids: &[u32]) -> TopParts {
        TopParts {
            counts: vec![ids.len() as u32],
            ids: ids.to_vec(),
            logits: ids.iter().map(|id| ROW[*id as usize]).collect(),
            norms: vec![norm(&ROW)],
            targets: vec![],
        }
    }

    #[test]
    fn an_honest_answer_is_taken_with_its_bound() {
        let log_prob = |id: usize| norm(&ROW).log_prob(ROW[id]);
        let tops = Tops::new(parts(&[0, 2]), SHAPE).unwrap();
        let top = tops.row(0).unwrap();
        assert_eq!((top.ids, top.logits, top.bound), (&[0, 2][..], &[2.0, 3.0][..], log_prob(0)));
        assert!(tops.row(1).is_err());
        let threshold = 0.05_f64.ln();
        let with_threshold = TopShape { log_threshold: Some(threshold), ..SHAPE };
        // Three tokens are above it, which bounds the others.
        let tops = Tops::new(parts(&[0, 2, 4]), with_threshold).unwrap();
        assert_eq!(tops.row(0).unwrap().bound, threshold);
        let all = Tops::new(parts(&[0, 1, 2, 3, 4]), TopShape { k: 5, ..SHAPE }).unwrap();
        assert_eq!(all.row(0).unwrap().bound, f64::NEG_INFINITY);
        let targets = TopParts { targets: vec![-1.0], ..parts(&[0, 2]) };
        let tops = Tops::new(targets, TopShape { targets: true, ..SHAPE }).unwrap();
        assert_eq!(tops.row(0).unwrap().target, Some(-1.0));
    }

    #[test]
    fn no_lie_that_can_be_found_is_taken() {
        let honest = || parts(&[0, 2]);
        let norm_of = |largest: f32, log_sum: f64| vec![Norm { largest, log_sum }];
        let Norm { largest, log_sum } = norm(&ROW);
        let lies: Vec<(&str, TopParts)> = vec![
            ("a token too few", parts(&[2])),
            ("a token too many", parts(&[0, 2, 4])),
            ("another count", TopParts { counts: vec![3], ..honest() }),
            ("a huge count", TopParts { counts: vec![u32::MAX], ..honest() }),
            ("no row", TopParts { counts: vec![], norms: vec![], ..parts(&[]) }),
            ("ids out of order", TopParts { ids: vec![2, 0], ..honest() }),
            ("an id twice", TopParts { ids: vec![2, 2], ..honest() }),
            ("an id outside", TopParts { ids: vec![0, 5], ..honest() }),
            ("NaN", TopParts { logits: vec![f32::NAN, 3.0], ..honest() }),
            ("minus infinity", TopParts { logits: vec![f32::NEG_INFINITY, 3.0], ..honest() }),
            ("above the largest", TopParts { logits: vec![3.5, 3.0], ..honest() }),
            ("without the largest", TopParts { logits: vec![2.0, 2.9], ..honest() }),
            ("a logit too few", TopParts { logits: vec![3.0], ..honest() }),
            ("a norm too large", TopParts { norms: norm_of(largest, log_sum + 1.0), ..honest() }),
            ("a norm too small", TopParts { norms: norm_of(largest, log_sum - 0.4), ..honest() }),
            ("a norm that is none", TopParts { norms: norm_of(largest, f64::NAN), ..honest() }),
            ("no norm", TopParts { norms: vec![], ..honest() }),
            ("a target", TopParts { targets: vec![0.0], ..honest() }),
        ];
        for (what, lie) in lies {
            assert!(Tops::new(lie, SHAPE).is_err(), "{what}");
        }
        let targets = TopShape { targets: true, ..SHAPE };
        for lie in [f32::NAN, 3.5] {
            assert!(Tops::new(TopParts { targets: vec![lie], ..honest() }, targets).is_err());
        }
        let none_below = TopShape { log_threshold: Some(0.3_f64.ln()), ..SHAPE };
        assert!(
            Tops::new(parts(&[0, 2, 4]), none_below).is_err(),
            "more than k, and not above the threshold"
        );
    }
}
