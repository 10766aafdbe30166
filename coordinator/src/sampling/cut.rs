//! Where truncation cuts: the fewest of the likeliest tokens that are as many, or weigh as much, as they may.
//!
//! The bound is found by bisection over the weights' bits, each step one vectorised pass, and the tokens around it are ordered
//! exactly. So nothing is sorted but a few tokens, or as many as are as likely as the last. Knows nothing about temperatures.

use chorus_simd::{for_each_within, mass_above};

use crate::fusion::{Candidate, Probabilities};

/// So few tokens around the bound are looked at one by one.
const FEW: usize = 32;

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// No more tokens than these.
    pub(super) tokens: usize,
    /// No more tokens than it takes to weigh this much together.
    pub(super) mass: f64,
}

/// Tokens above a bound: how many there are, and what they weigh together.
#[derive(Clone, Copy, Debug)]
struct Above {
    tokens: usize,
    mass: f64,
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Tokens of a higher weight are kept, all of them; beside them those that are listed.
    pub(super) bound: f32,
    /// What all that is kept weighs.
    pub(super) mass: f64,
}

/// Finds what is kept of tokens with these weights, which rise with their probabilities and are at most about 1. Lists in
/// `kept`, by id, those of `edge` that are kept, `edge` being those whose weights do not decide.
pub(super) fn cut(
    probabilities: &Probabilities<'_>,
    weights: &[f32],
    limits: Limits,
    edge: &mut Vec<Candidate>,
    kept: &mut Vec<u32>,
) -> Cut {
    kept.clear();
    let above = |bound: f32| {
        let (tokens, mass) = mass_above(weights, bound);
        Above { tokens, mass }
    };
    let all = above(0.0);
    if !all.reaches(limits) {
        return Cut { bound: 0.0, mass: all.mass };
    }
    let (low, high, mut over) = bisect(limits, all, weights.len(), above);
    let margin = probabilities.margin();
    let (from, bound) = ((low * (1.0 - margin)).max(f32::from_bits(1)), high * (1.0 + margin));
    edge.clear();
    for_each_within(weights, from, bound, |place, weight| {
        if weight > high {
            over = Above { tokens: over.tokens - 1, mass: over.mass - f64::from(weight) };
        }
        let id = u32::try_from(place).unwrap_or(u32::MAX);
        edge.push(Candidate { id, log_prob: probabilities.log_prob(id) });
    });
    edge.sort_unstable_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then(a.id.cmp(&b.id)));
    for candidate in &*edge {
        let weight = weights.get(candidate.id as usize).copied().unwrap_or(0.0);
        over = Above { tokens: over.tokens + 1, mass: over.mass + f64::from(weight) };
        kept.push(candidate.id);
        if over.reaches(limits) {
            break;
        }
    }
    kept.sort_unstable();
    Cut { bound, mass: over.mass }
}

/// Two bounds between which the limits are reached, with few tokens between them or none that differ, and what is above the
/// higher one.
fn bisect(limits: Limits, all: Above, tokens: usize, above: impl Fn(f32) -> Above) -> (f32, f32, Above) {
    // Positive numbers are in the order of their bits. Above the lower bound the limits are reached, above the higher not.
    let (mut low, mut at_low) = (0, all);
    let (mut high, mut at_high) = (f32::MAX.to_bits(), Above { tokens: 0, mass: 0.0 });
    // Where a mass is to be reached, tokens that are lighter than this can't be needed: all together would not outweigh what
    // may be missing. And no more than so many weigh more than their part of the whole.
    let lightest = (all.mass - limits.mass).max(0.0) / tokens as f64;
    let heaviest = all.mass / limits.tokens as f64;
    let mut next = [(lightest as f32).to_bits(), (heaviest as f32).to_bits().saturating_add(1)].into_iter();
    while high - low > 1 && at_low.tokens - at_high.tokens > FEW {
        let guess = next.next().filter(|guess| (low + 1..high).contains(guess));
        let middle = guess.unwrap_or(low + (high - low) / 2);
        let at_middle = above(f32::from_bits(middle));
        if at_middle.reaches(limits) {
            (low, at_low) = (middle, at_middle);
        } else {
            (high, at_high) = (middle, at_middle);
        }
    }
    (f32::from_bits(low), f32::from_bits(high), at_high)
}

impl Above {
    fn reaches(self, limits: Limits) -> bool {
        self.tokens >= limits.tokens || self.mass >= limits.mass
    }
}
