//! The exponents of `log_linear`, P ∝ prod_j P_j^a_j: learned from whole rows, which stand elsewhere and are read in parts. Knows
//! nothing about where that is.
//!
//! The mean log-probability is concave in a, so its optimum on the simplex is one and every method finds it:
//! ln P(w) = sum_j a_j l_j(w) - ln sum_u exp sum_j a_j l_j(u), a linear function less the log-sum-exp of linear functions,
//! which is convex (Boyd and Vandenberghe 2004, section 3.1.5). Its derivative by a_j is l_j(w) less its mean under P.

mod block;

use std::error::Error;
use std::ops::Range;
use std::slice;

use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use crate::cross_validation::{CrossValidation, Text, validate};
use crate::error::LearnError;
use crate::learned::{Learned, Observer};
use crate::method::Method;
use crate::objective::{Objective, Slope};
use crate::simplex::shares;
use block::Block;

/// Numbers that a thread computes with at once, about.
const BLOCK: usize = 1 << 18;

/// The most numbers that a token may have: members times vocabulary.
const MOST_NUMBERS: usize = 1 << 27;

/// Whole rows of a text's tokens, that are read again in every pass, from several threads at once.
pub trait DenseRows: Sync {
    /// How many members there are.
    fn members(&self) -> usize;

    /// How many ids a row has.
    fn vocab_size(&self) -> usize;

    /// How many tokens there are.
    fn tokens(&self) -> usize;

    /// Writes the rows `[tokens, members, vocabulary]` of some tokens that follow on each other, and these tokens' ids. A row
    /// holds natural logarithms of probabilities, or logits: what is added to a whole row makes no difference. Each time the same
    /// numbers are expected.
    ///
    /// # Errors
    /// Whatever keeps the rows from being read: it ends the learning and is the cause of its error.
    fn read(
        &self,
        tokens: Range<usize>,
        rows: &mut [f32],
        targets: &mut [u32],
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Learns the exponents, at least 0 and one in sum, under which the tokens are likeliest, by gradient or Bayesian optimisation.
///
/// # Errors
/// Expectation-maximisation, which learns weighted averages; an option out of its range; rows without members, vocabulary or
/// tokens, or too large ones; rows that can't be read; a number that is not finite; a target outside the vocabulary.
pub fn learn(
    rows: &dyn DenseRows,
    method: &Method,
    observer: &mut Observer<'_>,
) -> Result<Learned, LearnError> {
    learn_from(rows, slice::from_ref(&(0..rows.tokens())), method, observer)
}

/// The mean log-probability, in nats a token, with exponents in member order that are scaled to sum to one.
///
/// # Errors
/// Exponents that can't be shares ([`crate::shares`]), and rows as [`learn`] refuses them.
pub fn mean_log_prob(rows: &dyn DenseRows, exponents: &[f64]) -> Result<f64, LearnError> {
    let objective = LogLinear::new(rows, slice::from_ref(&(0..rows.tokens())))?;
    objective.mean_log_prob(&shares(exponents, rows.members())?)
}

/// Cross-validation as [`crate::cross_validate`] does it, of the exponents.
///
/// # Errors
/// What [`learn`] refuses, fewer than 2 folds, fewer tokens than folds, an observer that ends it.
pub fn cross_validate(
    rows: &dyn DenseRows,
    method: &Method,
    folds: usize,
    observer: &mut Observer<'_>,
) -> Result<CrossValidation, LearnError> {
    validate(&rows, method, folds, observer)
}

impl Text for &dyn DenseRows {
    fn members(&self) -> usize {
        (**self).members()
    }

    fn tokens(&self) -> usize {
        (**self).tokens()
    }

    fn learn_without(
        &self,
        held_out: &Range<usize>,
        method: &Method,
        observer: &mut Observer<'_>,
    ) -> Result<Learned, LearnError> {
        learn_from(*self, &[0..held_out.start, held_out.end..Text::tokens(self)], method, observer)
    }

    fn mean_log_prob_of(&self, tokens: &Range<usize>, weights: &[f64]) -> Result<f64, LearnError> {
        LogLinear::new(*self, slice::from_ref(tokens))?.mean_log_prob(weights)
    }
}

fn learn_from(
    rows: &dyn DenseRows,
    tokens: &[Range<usize>],
    method: &Method,
    observer: &mut Observer<'_>,
) -> Result<Learned, LearnError> {
    method.check()?;
    method.maximise(&LogLinear::new(rows, tokens)?, observer)
}

/// The mean log-probability of some tokens as a function of the exponents.
struct LogLinear<'a> {
    rows: &'a dyn DenseRows,
    blocks: Vec<Range<usize>>,
    tokens: usize,
}

/// What a block adds to the sums of all.
struct Part {
    log_prob: f64,
    gradient: Vec<f64>,
}

impl<'a> LogLinear<'a> {
    fn new(rows: &'a dyn DenseRows, ranges: &[Range<usize>]) -> Result<Self, LearnError> {
        let (members, vocab_size) = (rows.members(), rows.vocab_size());
        let tokens = ranges.iter().map(Range::len).sum();
        let numbers = members.checked_mul(vocab_size).filter(|numbers| (1..=MOST_NUMBERS).contains(numbers));
        let Some(numbers) = numbers.filter(|_| tokens > 0) else {
            return Err(LearnError::RowsShape { tokens, members, vocab_size, most: MOST_NUMBERS });
        };
        let length = (BLOCK / numbers).max(1);
        let blocks = ranges.iter().flat_map(|range| {
            range.clone().step_by(length).map(|start| start..range.end.min(start + length))
        });
        Ok(Self { rows, blocks: blocks.collect(), tokens })
    }

    /// The sums of all blocks, added in their order, so that threads don't change the bits.
    fn pass(&self, of_block: impl Fn(Block) -> Result<Part, LearnError> + Sync) -> Result<Slope, LearnError> {
        let parts = self.blocks.par_iter().map(|tokens| of_block(Block::read(self.rows, tokens)?));
        let parts: Vec<Part> = parts.collect::<Result<_, LearnError>>()?;
        let mut slope = Slope { mean_log_prob: 0.0, gradient: vec![0.0; self.rows.members()] };
        for part in &parts {
            slope.mean_log_prob += part.log_prob;
            slope.gradient.iter_mut().zip(&part.gradient).for_each(|(total, part)| *total += part);
        }
        slope.mean_log_prob /= self.tokens as f64;
        slope.gradient.iter_mut().for_each(|total| *total /= self.tokens as f64);
        Ok(slope)
    }
}

impl Objective for LogLinear<'_> {
    fn members(&self) -> usize {
        self.rows.members()
    }

    fn mean_log_prob(&self, weights: &[f64]) -> Result<f64, LearnError> {
        let slope = self.pass(|block| {
            let weights = Tensor::from_slice(weights, weights.len(), &Device::Cpu)?;
            Ok(Part { log_prob: block.log_prob(&weights)?.to_scalar()?, gradient: Vec::new() })
        });
        Ok(slope?.mean_log_prob)
    }

    fn differentiate(&self, weights: &[f64]) -> Result<Slope, LearnError> {
        self.pass(|block| {
            let weights = Var::from_slice(weights, weights.len(), &Device::Cpu)?;
            let log_prob = block.log_prob(&weights)?;
            let gradient = match log_prob.backward()?.get(&weights) {
                Some(gradient) => gradient.to_vec1()?,
                None => Vec::new(),
            };
            Ok(Part { log_prob: log_prob.to_scalar()?, gradient })
        })
    }
}

#[cfg(test)]
mod tests;
