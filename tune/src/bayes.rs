//! Bayesian optimisation of weights: a Gaussian process of what was seen says where to look next. Needs no slope, only values,
//! and few of them. Knows nothing about what the objective is made of.
//!
//! The process and the search for the largest expected improvement are our own, on nalgebra, and not a crate's that brings its
//! loop along: the simplex is no box (a box folded onto it would treat the members differently), and a library must not
//! take the process's Ctrl-C or read its environment.

mod improvement;
mod process;

use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::LearnError;
use crate::learned::{Ended, Learned, Observer, Progress};
use crate::objective::{Objective, Point};
use crate::simplex::equal_shares;
use improvement::{most_promising, place, scattered};
use process::Process;

/// How much Bayesian optimisation may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BayesOptions {
    /// Weights that are evaluated, each in a pass over all tokens; 1 to 500 ([`BayesOptions::MOST`]).
    pub evaluations: usize,
    /// What chance is drawn from: the same seed, the same result.
    pub seed: u64,
}

impl Default for BayesOptions {
    fn default() -> Self {
        Self { evaluations: 60, seed: 0 }
    }
}

impl BayesOptions {
    /// The most evaluations: the work of a process grows with the cube of what it has seen.
    pub const MOST: usize = 500;

    pub(crate) fn check(&self) -> Result<(), LearnError> {
        if (1..=Self::MOST).contains(&self.evaluations) {
            return Ok(());
        }
        let value = self.evaluations.to_string();
        Err(LearnError::Option { option: "the number of evaluations", value, allowed: "1 to 500" })
    }
}

/// The best weights so far that are looked around.
const LEADING: usize = 3;

/// Weights that were evaluated.
struct Seen {
    weights: Vec<f64>,
    mean_log_prob: f64,
}

/// Looks at equal weights, at each member with most of the weight, at a few scattered weights, and then where it is promising.
pub(crate) fn learn(
    objective: &dyn Objective,
    options: &BayesOptions,
    observer: &mut Observer<'_>,
) -> Result<Learned, LearnError> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut seen: Vec<Seen> = Vec::new();
    let mut history = Vec::new();
    let mut ended = Ended::Budget;
    // With one member there is one point.
    let limit = if objective.members() == 1 { 1 } else { options.evaluations };
    while seen.len() < limit {
        let weights = match first_looks(objective.members(), seen.len(), &mut random) {
            Some(weights) => weights,
            None => next_look(&seen, &mut random)?,
        };
        let mean_log_prob = objective.mean_log_prob(&weights)?;
        seen.push(Seen { weights, mean_log_prob });
        let best = seen.iter().map(|seen| seen.mean_log_prob).fold(f64::NEG_INFINITY, f64::max);
        history.push(best);
        let passes = seen.len();
        let progress = Progress { part: 0, parts: 1, passes, limit, best, duality_gap: None };
        if let ControlFlow::Break(()) = observer(&progress) {
            ended = Ended::Stopped;
            break;
        }
    }
    let passes = seen.len() + 1;
    let best = seen
        .into_iter()
        .max_by(|a, b| a.mean_log_prob.total_cmp(&b.mean_log_prob))
        .ok_or(LearnError::Stopped)?;
    let slope = objective.differentiate(&best.weights)?;
    Ok(Learned::new(Point::new(best.weights, slope), passes, history, ended))
}

/// What is looked at before there is a process.
fn first_looks(members: usize, look: usize, random: &mut ChaCha8Rng) -> Option<Vec<f64>> {
    match look {
        0 => Some(equal_shares(members)),
        look if look <= members => {
            let mut weights = vec![0.3 / members as f64; members];
            weights[look - 1] += 0.7;
            Some(weights)
        }
        look if look <= 2 * members => Some(scattered(members, random)),
        _ => None,
    }
}

fn next_look(seen: &[Seen], random: &mut ChaCha8Rng) -> Result<Vec<f64>, LearnError> {
    let points: Vec<Vec<f64>> = seen.iter().map(|seen| place(&seen.weights)).collect();
    let mut order: Vec<&Seen> = seen.iter().collect();
    order.sort_by(|a, b| b.mean_log_prob.total_cmp(&a.mean_log_prob));
    let values = heights(seen, &order);
    let members = order.first().map_or(0, |best| best.weights.len());
    let Some(process) = Process::fit(&points, &values) else { return Ok(scattered(members, random)) };
    let leading: Vec<&[f64]> = order.iter().take(LEADING).map(|seen| seen.weights.as_slice()).collect();
    let promising = most_promising(&process, 0.0, &leading, random);
    // What was seen already says nothing new.
    let is_new = |weights: &Vec<f64>| seen.iter().all(|seen| seen.weights != *weights);
    Ok(promising.filter(is_new).unwrap_or_else(|| scattered(members, random)))
}

/// Values as the process sees them: -ln(1 + distance from the best / typical distance). 0 is the best; near it this is a straight
/// line, and values that are far worse, or minus infinity, don't hide the hill on which the good ones are.
fn heights(seen: &[Seen], order: &[&Seen]) -> Vec<f64> {
    let best = order.first().map_or(0.0, |seen| seen.mean_log_prob);
    let finite = order.iter().take_while(|seen| seen.mean_log_prob > f64::NEG_INFINITY).count();
    let distance = |seen: &Seen| best - seen.mean_log_prob;
    let typical = order.get(finite / 2).map_or(1.0, |seen| distance(seen));
    let typical = if typical > 0.0 && typical.is_finite() { typical } else { 1.0 };
    let height = |seen: &Seen| -(distance(seen) / typical).ln_1p();
    let lowest = order.get(finite.saturating_sub(1)).map_or(0.0, |seen| height(seen)) - 1.0;
    seen.iter().map(|seen| height(seen).max(lowest)).collect()
}

#[cfg(test)]
mod tests;
