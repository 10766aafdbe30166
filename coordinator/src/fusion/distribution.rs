//! A next-token distribution of which every probability is known roughly and each can be had exactly. Knows nothing about
//! what is done with it.

use chorus_simd::find_above;

use super::adjusted::Adjustment;
use super::arithmetic::log_of_mixture;
use super::leading::{Candidate, first, leading};
use super::row::Row;
use super::scratch::Spare;

/// The probabilities of all tokens, by id. They sum to one but for rounding (about 1e-7).
///
/// It holds an f32 for each token, which selects; whatever is said of a token (its log-probability, its place before another
/// one) comes from f64 and is exact: natural logarithms, at most 0.
#[derive(Debug)]
pub struct Distribution<'a> {
    probabilities: Probabilities<'a>,
    spare: &'a mut Spare,
}

/// A [`Distribution`] to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probabilities<'a> {
    exact: Exact<'a>,
    /// About proportional to the probabilities: see [`Probabilities::bound`].
    values: &'a [f32],
    /// The largest of them.
    largest: f32,
    /// The share by which a value may be off, twice.
    margin: f32,
    /// What becomes of the log-probabilities.
    adjustment: Option<&'a Adjustment<'a>>,
}

/// What log-probabilities come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exact<'a> {
    /// sum_j a_j P_j(w) of rows with these shares; those without a share have no say.
    Mixture { rows: &'a [(f64, Row<'a>)], shares: &'a [f64] },
    /// The softmax of scores, with their largest and the logarithm of their sum of exponentials beside the largest.
    Scores { scores: &'a [f64], largest: f64, log_sum: f64 },
}

impl Exact<'_> {
    fn log_prob(&self, id: u32) -> Option<f64> {
        match *self {
            Self::Mixture { rows, shares } => {
                rows.first()?.1.log_prob(id)?;
                let sharing = shares.iter().zip(rows).filter(|(share, _)| **share > 0.0);
                let column = sharing.filter_map(|(share, (_, row))| Some((*share, row.log_prob(id)?)));
                Some(log_of_mixture(&column))
            }
            // Not added to the largest first: a sum of huge and small would lose the small one.
            Self::Scores { scores, largest, log_sum } => {
                scores.get(id as usize).map(|score| (score - largest - log_sum).min(0.0))
            }
        }
    }

    /// How far values may be off, as a share of themselves: 6e-8 for each of the 87 units below a row's largest that f32
    /// holds, 3e-7 of an exponential, and a last bit for each summand. Twice that, for the two sides of a comparison, and
    /// rounded up.
    fn margin(&self) -> f32 {
        match self {
            Self::Mixture { rows, .. } => 2e-5 + 3e-7 * rows.len() as f32,
            Self::Scores { .. } => 2e-5,
        }
    }
}

impl<'a> Distribution<'a> {
    /// `values` are about proportional to the probabilities, as [`chorus_simd`] computes exponentials; `largest` is the largest
    /// of them.
    pub(super) fn new(exact: Exact<'a>, values: &'a [f32], largest: f32, spare: &'a mut Spare) -> Self {
        let margin = exact.margin().min(0.5);
        Self { probabilities: Probabilities { exact, values, largest, margin, adjustment: None }, spare }
    }

    /// The same distribution, bent; `values` are what became of its values.
    pub(super) fn bent(
        of: &Probabilities<'a>,
        adjustment: &'a Adjustment<'a>,
        values: &'a [f32],
        largest: f32,
        spare: &'a mut Spare,
    ) -> Self {
        Self { probabilities: Probabilities { values, largest, adjustment: Some(adjustment), ..*of }, spare }
    }

    /// How many tokens there are, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a distribution is never empty")]
    pub fn len(&self) -> usize {
        self.probabilities.values.len()
    }

    /// The log-probability of a token; `None` outside the vocabulary.
    pub fn log_prob(&self, id: u32) -> Option<f64> {
        let log_prob = self.probabilities.exact.log_prob(id)?;
        Some(self.probabilities.bend(id, log_prob))
    }

    /// The log-probabilities, by id; each is computed when it is asked for.
    pub fn log_probs(&self) -> impl ExactSizeIterator<Item = f64> + Clone + '_ {
        (0..self.len()).map(|id| self.probabilities.log_prob(id as u32))
    }

    /// The likeliest token; of equal ones the one with the lowest id.
    pub fn argmax(&self) -> u32 {
        self.probabilities.argmax()
    }

    /// The `n` likeliest tokens, likeliest first, equal ones by lower id; all of them where there are fewer.
    pub fn top(&self, n: usize) -> Vec<Candidate> {
        let Probabilities { values, .. } = self.probabilities;
        let next = |start, last: Option<(u32, f32)>| match last {
            Some((_, value)) => find_above(values, start, self.probabilities.bound(value)),
            None => (start < values.len()).then_some(start),
        };
        let key = |place: usize| (0, values.get(place).copied().unwrap_or(0.0));
        let top = leading(n, next, key, |id| self.probabilities.log_prob(id));
        top.into_iter().map(Candidate::from).collect()
    }

    /// What can be read, and what whoever chooses may write on.
    pub(crate) fn parts(&mut self) -> (Probabilities<'_>, &mut Spare) {
        (self.probabilities, self.spare)
    }

    pub(super) fn probabilities(&self) -> &Probabilities<'a> {
        &self.probabilities
    }
}

impl<'a> Probabilities<'a> {
    /// A value below this says nothing: tokens are that unlikely, or their exponentials were lost to f32.
    pub(crate) const LEAST_VALUE: f32 = 1e-30;

    /// About proportional to the probabilities.
    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The largest of the values.
    pub(crate) fn largest(&self) -> f32 {
        self.largest
    }

    /// Values that differ by less than this share of them are decided by what is exact.
    pub(crate) fn margin(&self) -> f32 {
        self.margin
    }

    /// A token whose value is not above this is less likely than one with this value. Minus one where that can't be said.
    pub(crate) fn bound(&self, value: f32) -> f32 {
        // Whatever was lost to f32 is below 2e-38 in all, a vanishing part of the least value.
        if value >= Self::LEAST_VALUE { value * (1.0 - self.margin) } else { -1.0 }
    }

    /// The log-probability of a token; minus infinity outside the vocabulary.
    pub(crate) fn log_prob(&self, id: u32) -> f64 {
        self.exact.log_prob(id).map_or(f64::NEG_INFINITY, |log_prob| self.bend(id, log_prob))
    }

    fn bend(&self, id: u32, log_prob: f64) -> f64 {
        self.adjustment.map_or(log_prob, |adjustment| adjustment.bend(id, log_prob))
    }

    pub(crate) fn argmax(&self) -> u32 {
        let next = |start, before: Option<(u32, f32)>| {
            find_above(self.values, start, before.map_or(-1.0, |(_, value)| self.bound(value)))
        };
        let key = |place: usize| (0, self.values.get(place).copied().unwrap_or(0.0));
        first((0, self.largest), next, key, |id| self.log_prob(id)).map_or(0, |first| first.id)
    }
}
