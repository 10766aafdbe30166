//! The best weights of every set of members that may be left when others are lost, and what each loss is expected to cost. Knows
//! nothing about who is lost when.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::em::{self, EmOptions};
use crate::error::LearnError;
use crate::learned::{Observer, Progress, unobserved};
use crate::log_probs::LogProbs;
use crate::mixture::Mixture;
use crate::simplex::{equal_shares, normalize, towards_equal};

/// Up to so many members all their sets have weights; of more members only those without one or two of them.
pub const ALL_SETS: usize = 8;

/// A start is this part of the way from what a larger set taught to equal weights: a weight of 0 could not grow.
const AWAY: f64 = 0.02;

/// Sets that are learned between two looks at the observer.
const AT_ONCE: usize = 16;

/// The weights of every set that may survive.
#[derive(Clone, Debug, PartialEq)]
pub struct Sets {
    /// All members' names, in member order.
    pub members: Vec<String>,
    /// The full set first, then those without one member, and so on; those of one size in the order of their members.
    pub sets: Vec<SetWeights>,
}

/// The best weights of a set of members, as a weighted average.
#[derive(Clone, Debug, PartialEq)]
pub struct SetWeights {
    /// Who is in it: places in member order, rising.
    pub members: Vec<usize>,
    /// A weight for each of these, in this order; they sum to one.
    pub weights: Vec<f64>,
    /// The mean log-probability, in nats a token; minus infinity where there are impossible tokens.
    pub mean_log_prob: f64,
    /// exp(-mean log-probability): what to expect of this set.
    pub perplexity: f64,
    /// How much larger the mean log-probability of the possible tokens could be at most, in nats a token.
    pub duality_gap: f64,
    /// How many tokens have probability zero under every member of the set. The weights are the best for the others.
    pub impossible_tokens: usize,
}

impl Sets {
    /// The set of these members (places in member order, in any order).
    pub fn of(&self, members: &[usize]) -> Option<&SetWeights> {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        self.sets.iter().find(|set| set.members == sorted)
    }

    /// The set of all members but these.
    pub fn without(&self, members: &[usize]) -> Option<&SetWeights> {
        let left: Vec<usize> = (0..self.members.len()).filter(|member| !members.contains(member)).collect();
        self.of(&left)
    }
}

/// The sets that have weights: all but the empty one up to 8 members ([`ALL_SETS`]), beyond that the full one and those without
/// one or two members. Larger ones first.
pub fn surviving_sets(members: usize) -> Vec<Vec<usize>> {
    let fewest = if members <= ALL_SETS { 1 } else { members - 2 };
    (fewest..=members).rev().flat_map(|size| subsets(members, size)).collect()
}

/// All sets of a size, in the order of their members.
fn subsets(members: usize, size: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    let mut chosen: Vec<usize> = (0..size).collect();
    loop {
        all.push(chosen.clone());
        // The last place that can still move on; all behind it follow right after.
        let Some(place) = (0..size).rev().find(|place| chosen[*place] < members - size + place) else {
            return all;
        };
        let next = chosen[place] + 1;
        chosen.iter_mut().skip(place).enumerate().for_each(|(offset, member)| *member = next + offset);
    }
}

/// Learns the weights of every set that may survive, by expectation-maximisation; a set begins with what one member more
/// has taught. The observer is told how many sets are done, and of the mean log-probability of the last one.
///
/// # Errors
/// An option out of its range, an observer that ends it.
pub fn learn_sets(
    log_probs: &LogProbs,
    options: &EmOptions,
    observer: &mut Observer<'_>,
) -> Result<Sets, LearnError> {
    options.check()?;
    let members = log_probs.members().len();
    let all = surviving_sets(members);
    let mut known: HashMap<Vec<usize>, Vec<f64>> = HashMap::new();
    let mut sets: Vec<SetWeights> = Vec::with_capacity(all.len());
    // Sets of one size don't need each other.
    for of_size in all.chunk_by(|one, other| one.len() == other.len()) {
        for some in of_size.chunks(AT_ONCE) {
            let learned: Result<Vec<SetWeights>, LearnError> =
                some.par_iter().map(|set| learn_set(log_probs, set, options, &known)).collect();
            sets.extend(learned?);
            let Some(last) = sets.last() else { continue };
            let progress = Progress {
                part: sets.len(),
                parts: all.len(),
                passes: 0,
                limit: options.passes,
                best: last.mean_log_prob,
                duality_gap: Some(last.duality_gap),
            };
            if let ControlFlow::Break(()) = observer(&progress) {
                return Err(LearnError::Stopped);
            }
        }
        let begin = sets.len() - of_size.len();
        known = sets[begin..].iter().map(|set| (set.members.clone(), set.weights.clone())).collect();
    }
    Ok(Sets { members: log_probs.members().to_vec(), sets })
}

fn learn_set(
    log_probs: &LogProbs,
    members: &[usize],
    options: &EmOptions,
    larger: &HashMap<Vec<usize>, Vec<f64>>,
) -> Result<SetWeights, LearnError> {
    let own = log_probs.select_members_unchecked(members)?;
    let mixture = Mixture::new(&own);
    let impossible_tokens = own.tokens() - mixture.tokens();
    let members = members.to_vec();
    if mixture.tokens() == 0 {
        let (mean_log_prob, perplexity) = (f64::NEG_INFINITY, f64::INFINITY);
        let weights = equal_shares(members.len());
        return Ok(SetWeights {
            members,
            weights,
            mean_log_prob,
            perplexity,
            duality_gap: 0.0,
            impossible_tokens,
        });
    }
    let start = start(&members, log_probs.members().len(), larger);
    let learned = em::learn(&mixture, options, start, &mut unobserved);
    let mean_log_prob = if impossible_tokens > 0 { f64::NEG_INFINITY } else { learned.mean_log_prob };
    Ok(SetWeights {
        members,
        weights: learned.weights,
        mean_log_prob,
        perplexity: (-mean_log_prob).exp(),
        duality_gap: learned.duality_gap,
        impossible_tokens,
    })
}

/// The weights that a set with one member more has for these, all a little above 0.
fn start(members: &[usize], all: usize, larger: &HashMap<Vec<usize>, Vec<f64>>) -> Vec<f64> {
    let with = |added: usize| {
        let mut set = members.to_vec();
        set.insert(set.partition_point(|member| *member < added), added);
        larger.get(&set).map(|weights| (set.clone(), weights))
    };
    let found = (0..all).filter(|member| !members.contains(member)).find_map(with);
    let kept = found.map(|(set, weights)| -> Vec<f64> {
        let own = set.iter().zip(weights).filter(|(member, _)| members.contains(member));
        own.map(|(_, weight)| *weight).collect()
    });
    match kept {
        Some(mut weights) if weights.iter().sum::<f64>() > 0.0 => {
            normalize(&mut weights);
            towards_equal(&weights, AWAY)
        }
        _ => equal_shares(members.len()),
    }
}

#[cfg(test)]
mod tests;
