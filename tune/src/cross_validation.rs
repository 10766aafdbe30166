//! Cross-validation around any method: what weights are worth on tokens that they were not learned from, and how much they
//! depend on which tokens those were. Knows no method from the inside and no rule.

use std::ops::Range;

use crate::error::LearnError;
use crate::learned::{Learned, Observer, Progress};
use crate::log_probs::LogProbs;
use crate::method::{Method, learn};
use crate::simplex::equal_shares;

/// What was learned without each part of a text, and how it did on that part.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossValidation {
    /// One for each part, in order.
    pub folds: Vec<Fold>,
    /// Each member's weight over the folds, in member order.
    pub weights: Vec<Spread>,
    /// The perplexity of all tokens, each under weights that were learned without it.
    pub perplexity: f64,
    /// The perplexity of all tokens under equal weights.
    pub equal_perplexity: f64,
}

/// One part of a text and the weights that were learned without it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// The tokens that were held out.
    pub held_out: Range<usize>,
    /// What the other tokens taught; its perplexity is theirs.
    pub learned: Learned,
    /// The perplexity of the held-out tokens with these weights; infinite where one has probability zero.
    pub perplexity: f64,
    /// The perplexity of the held-out tokens with equal weights.
    pub equal_perplexity: f64,
}

/// A number that differs from fold to fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean over the folds.
    pub mean: f64,
    /// The standard deviation over the folds (of a sample: divided by one less than there are folds).
    pub deviation: f64,
}

impl CrossValidation {
    /// The mean weights over the folds, in member order; they sum to one.
    pub fn mean_weights(&self) -> Vec<f64> {
        self.weights.iter().map(|weight| weight.mean).collect()
    }
}

/// Cuts the tokens into so many parts of equal length (but for one token) that follow on each other, and learns the weights of the
/// weighted average without each of them. Neighbours in a text are alike, so parts in one piece are the honest test.
///
/// # Errors
/// Fewer than 2 folds, fewer tokens than folds, what [`learn`] refuses, an observer that ends it.
pub fn cross_validate(
    log_probs: &LogProbs,
    method: &Method,
    folds: usize,
    observer: &mut Observer<'_>,
) -> Result<CrossValidation, LearnError> {
    validate(log_probs, method, folds, observer)
}

/// What can be learned from in parts.
pub(crate) trait Text {
    fn members(&self) -> usize;
    fn tokens(&self) -> usize;
    /// Learns from all tokens but these.
    fn learn_without(
        &self,
        held_out: &Range<usize>,
        method: &Method,
        observer: &mut Observer<'_>,
    ) -> Result<Learned, LearnError>;
    /// The mean log-probability of these tokens.
    fn mean_log_prob_of(&self, tokens: &Range<usize>, weights: &[f64]) -> Result<f64, LearnError>;
}

impl Text for LogProbs {
    fn members(&self) -> usize {
        Self::members(self).len()
    }

    fn tokens(&self) -> usize {
        Self::tokens(self)
    }

    fn learn_without(
        &self,
        held_out: &Range<usize>,
        method: &Method,
        observer: &mut Observer<'_>,
    ) -> Result<Learned, LearnError> {
        learn(&self.without_tokens(held_out.clone())?, method, observer)
    }

    fn mean_log_prob_of(&self, tokens: &Range<usize>, weights: &[f64]) -> Result<f64, LearnError> {
        Ok(self.select_tokens(tokens.clone())?.mean_log_prob(weights)?)
    }
}

pub(crate) fn validate(
    text: &dyn Text,
    method: &Method,
    folds: usize,
    observer: &mut Observer<'_>,
) -> Result<CrossValidation, LearnError> {
    let tokens = text.tokens();
    if folds < 2 {
        return Err(LearnError::TooFewFolds { folds });
    }
    if tokens < folds {
        return Err(LearnError::TooFewTokens { tokens, folds });
    }
    let equal = equal_shares(text.members());
    let (mut done, mut learned_sum, mut equal_sum) = (Vec::with_capacity(folds), 0.0, 0.0);
    for part in 0..folds {
        let held_out = boundary(part, folds, tokens)..boundary(part + 1, folds, tokens);
        let mut is_stopped = false;
        let mut of_fold = |progress: &Progress| {
            let flow = observer(&Progress { part, parts: folds, ..*progress });
            is_stopped |= flow.is_break();
            flow
        };
        let learned = text.learn_without(&held_out, method, &mut of_fold)?;
        if is_stopped {
            return Err(LearnError::Stopped);
        }
        let mean = text.mean_log_prob_of(&held_out, &learned.weights)?;
        let equal_mean = text.mean_log_prob_of(&held_out, &equal)?;
        learned_sum += mean * held_out.len() as f64;
        equal_sum += equal_mean * held_out.len() as f64;
        done.push(Fold {
            held_out,
            learned,
            perplexity: (-mean).exp(),
            equal_perplexity: (-equal_mean).exp(),
        });
    }
    let weight_of =
        |member: usize| done.iter().filter_map(move |fold| fold.learned.weights.get(member).copied());
    Ok(CrossValidation {
        weights: (0..text.members()).map(|member| Spread::of(weight_of(member))).collect(),
        perplexity: (-learned_sum / tokens as f64).exp(),
        equal_perplexity: (-equal_sum / tokens as f64).exp(),
        folds: done,
    })
}

/// Where a part begins, so that no two parts differ by more than a token.
fn boundary(part: usize, folds: usize, tokens: usize) -> usize {
    part * (tokens / folds) + part.min(tokens % folds)
}

impl Spread {
    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let count = numbers.clone().count() as f64;
        let mean = numbers.clone().sum::<f64>() / count;
        let squares: f64 = numbers.map(|number| (number - mean).powi(2)).sum();
        Self { mean, deviation: (squares / (count - 1.0)).sqrt() }
    }
}

#[cfg(test)]
mod tests;
