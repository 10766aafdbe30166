//! Expectation-maximisation for the weights of a weighted average: the convex optimum, uphill at every step. Knows nothing
//! about other methods.
//!
//! A step is a_j <- a_j g_j with g_j = mean_t p_tj / sum_k a_k p_tk: the mean responsibility of member j (Dempster, Laird and
//! Rubin 1977). It never loses likelihood. Two steps show where the next ones are going, and a leap along that line
//! (SQUAREM with the step length S3: Varadhan and Roland 2008) saves most of them. Where several weights go to 0, each at a
//! pace of its own, no one length fits all of them, and thousands of steps would be left; there Newton's leap is made in its
//! place (`newton`). A leap that loses likelihood is not made, whichever it is, and the second step is taken.
//!
//! How far the optimum a* is at most: by Jensen's inequality
//! F(a*) - F(a) = mean_t ln (mix*_t / mix_t) <= ln mean_t (mix*_t / mix_t) = ln sum_j a*_j g_j <= ln max_j g_j <= max_j g_j - 1,
//! which is the concave function's gap (`Slope::duality_gap`), since sum_j a_j g_j = 1.

mod newton;

use std::ops::ControlFlow;

use crate::error::LearnError;
use crate::learned::{Ended, Learned, Observer, Progress};
use crate::mixture::Mixture;
use crate::objective::Point;
use crate::simplex::normalize;

/// When expectation-maximisation ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmOptions {
    /// The duality gap that is small enough, in nats a token; above 0.
    pub tolerance: f64,
    /// The passes over all tokens that may be made; at least 1.
    pub passes: usize,
}

impl Default for EmOptions {
    /// So near that weights have four right digits wherever the members differ at all, and far more passes than that takes.
    fn default() -> Self {
        Self { tolerance: 1e-12, passes: 2000 }
    }
}

impl EmOptions {
    pub(crate) fn check(&self) -> Result<(), LearnError> {
        LearnError::require_positive("the tolerance", self.tolerance)?;
        LearnError::require_some("the number of passes", self.passes)
    }
}

/// A leap may take a weight down to this share of what it was: a weight of 0 could never grow again.
const LEAST_SHARE: f64 = 1e-3;

/// A round of two steps and a leap that leaves more of the gap than this is followed by the other kind of leap.
const SLOW: f64 = 0.1;

/// A weight below this is on its way to 0, where steps and leaps never arrive.
const TRACE: f64 = 1e-7;

/// How often Newton's leap is shortened, each time to a quarter, before it is given up.
const SHORTENINGS: i32 = 3;

/// Goes uphill from weights that are all positive and sum to one, on a mixture of at least one token.
pub(crate) fn learn(
    mixture: &Mixture,
    options: &EmOptions,
    start: Vec<f64>,
    observer: &mut Observer<'_>,
) -> Learned {
    let mut climb = Climb { mixture, options, observer, passes: 0, history: Vec::new() };
    let (point, ended) = climb.run(start);
    let point = if ended == Ended::Converged { climb.without_traces(point) } else { point };
    Learned::new(point, climb.passes, climb.history, ended)
}

/// How the next point is guessed.
#[derive(Clone, Copy)]
enum Leap {
    /// From the two steps before.
    Extrapolation,
    /// From the curvature.
    Newton,
}

struct Climb<'a, 'b> {
    mixture: &'a Mixture,
    options: &'a EmOptions,
    observer: &'a mut Observer<'b>,
    passes: usize,
    history: Vec<f64>,
}

impl Climb<'_, '_> {
    fn run(&mut self, start: Vec<f64>) -> (Point, Ended) {
        let mut here = self.evaluate(start);
        let mut leap = Leap::Extrapolation;
        loop {
            if let Some(ended) = self.arrive(&here) {
                return (here, ended);
            }
            let first = self.evaluate(step(&here));
            if let Some(ended) = self.arrive(&first) {
                return (first, ended);
            }
            let second = step(&first);
            let leaped = match leap {
                Leap::Extrapolation => self.extrapolation(&here, &first, &second),
                Leap::Newton => self.newton(&first),
            };
            let before = here.gap;
            here = leaped.unwrap_or_else(|| self.evaluate(second));
            if here.gap > SLOW * before {
                leap = match leap {
                    Leap::Extrapolation => Leap::Newton,
                    Leap::Newton => Leap::Extrapolation,
                };
            }
        }
    }

    /// The same with weights of 0 where hardly anything is left, if that is as near to the optimum.
    fn without_traces(&mut self, point: Point) -> Point {
        if point.weights.iter().all(|weight| *weight >= TRACE) {
            return point;
        }
        let kept = point.weights.iter().map(|weight| if *weight < TRACE { 0.0 } else { *weight });
        let mut weights: Vec<f64> = kept.collect();
        normalize(&mut weights);
        let cleared = self.evaluate(weights);
        if cleared.gap > self.options.tolerance {
            return point;
        }
        self.history.push(cleared.slope.mean_log_prob);
        cleared
    }

    fn evaluate(&mut self, weights: Vec<f64>) -> Point {
        self.passes += 1;
        let slope = self.mixture.slope(&weights);
        Point::new(weights, slope)
    }

    /// Notes a point of the way; why it is the last one.
    fn arrive(&mut self, point: &Point) -> Option<Ended> {
        self.history.push(point.slope.mean_log_prob);
        if point.gap <= self.options.tolerance {
            return Some(Ended::Converged);
        }
        let progress = Progress {
            part: 0,
            parts: 1,
            passes: self.passes,
            limit: self.options.passes,
            best: point.slope.mean_log_prob,
            duality_gap: Some(point.gap),
        };
        match (self.observer)(&progress) {
            ControlFlow::Break(()) => Some(Ended::Stopped),
            ControlFlow::Continue(()) => (self.passes >= self.options.passes).then_some(Ended::Budget),
        }
    }

    fn extrapolation(&mut self, start: &Point, first: &Point, second: &[f64]) -> Option<Point> {
        let leap = self.evaluate(extrapolate(&start.weights, &first.weights, second)?);
        leap.is_uphill_from(first).then_some(leap)
    }

    fn newton(&mut self, from: &Point) -> Option<Point> {
        self.passes += 1;
        let curvature = self.mixture.curvature(&from.weights);
        let target = newton::leap(&from.weights, &from.slope.gradient, &curvature)?;
        (0..=SHORTENINGS).find_map(|times| {
            let share = 0.25_f64.powi(times);
            let way = from.weights.iter().zip(&target);
            let mut weights: Vec<f64> =
                way.map(|(from, to)| (from + share * (to - from)).max(LEAST_SHARE * from)).collect();
            normalize(&mut weights);
            let leap = self.evaluate(weights);
            leap.is_uphill_from(from).then_some(leap)
        })
    }
}

/// One step of expectation-maximisation.
fn step(point: &Point) -> Vec<f64> {
    let responsibilities = point.weights.iter().zip(&point.slope.gradient);
    let mut weights: Vec<f64> = responsibilities.map(|(weight, ratio)| weight * ratio).collect();
    normalize(&mut weights);
    weights
}

/// a0 + 2 s r + s^2 v with r = a1 - a0, v = (a2 - a1) - r and s = |r| / |v|; `None` where that is no more than two steps.
fn extrapolate(start: &[f64], first: &[f64], second: &[f64]) -> Option<Vec<f64>> {
    let moves = start.iter().zip(first).zip(second);
    let moves: Vec<(f64, f64)> = moves.map(|((a0, a1), a2)| (a1 - a0, (a2 - a1) - (a1 - a0))).collect();
    let squares = moves.iter().fold((0.0, 0.0), |(r2, v2), (r, v)| (r2 + r * r, v2 + v * v));
    let length = (squares.0 / squares.1).sqrt();
    if !length.is_finite() || length <= 1.0 {
        return None;
    }
    let leaped = start
        .iter()
        .zip(second)
        .zip(&moves)
        .map(|((a0, a2), (r, v))| (a0 + 2.0 * length * r + length * length * v).max(LEAST_SHARE * a2));
    let mut weights: Vec<f64> = leaped.collect();
    normalize(&mut weights);
    Some(weights)
}

#[cfg(test)]
mod tests;
