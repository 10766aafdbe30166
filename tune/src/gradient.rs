//! Gradient ascent on the softmax of free numbers: candle's autograd gives the gradient, argmin's L-BFGS chooses the steps.
//! Knows nothing about what the objective is made of.
//!
//! The weights are softmax(x), so they stay on the simplex, and a weight of 0 is where its number goes to minus infinity: near
//! there the slope by x vanishes with the weight, while the duality gap, which is measured by the slope by the weights, does
//! not. So the gap decides when to end.

use std::cell::RefCell;
use std::ops::ControlFlow;

use argmin::core::{CostFunction, Error, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use candle_core::{Device, Tensor, Var};

use crate::error::LearnError;
use crate::learned::{Ended, Learned, Observer, Progress};
use crate::objective::{Objective, Point};
use crate::simplex::{equal_shares, normalize};

/// When gradient ascent ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientOptions {
    /// The duality gap that is small enough, in nats a token; above 0.
    pub tolerance: f64,
    /// The passes over all tokens that may be made; at least 1.
    pub passes: usize,
}

impl Default for GradientOptions {
    /// About as near as rounding lets a line search come.
    fn default() -> Self {
        Self { tolerance: 1e-10, passes: 1000 }
    }
}

impl GradientOptions {
    pub(crate) fn check(&self) -> Result<(), LearnError> {
        LearnError::require_positive("the tolerance", self.tolerance)?;
        LearnError::require_some("the number of passes", self.passes)
    }
}

/// Steps that L-BFGS remembers: more than there are directions for a usual number of members.
const MEMORY: usize = 10;

/// A run ends after so many visits that found nothing better: a line search needs a few, and more are spent only where rounding
/// hides the way.
const PATIENCE: usize = 20;

/// Where L-BFGS ends before the gap is small, it begins anew at the best weights with an empty memory; there weights that should
/// grow and are so near to 0 that their numbers' slope vanished are raised to this, first.
const RAISED: [f64; 6] = [1e-4, 1e-3, 1e-5, 1e-2, 1e-4, 1e-6];

/// Goes uphill from equal weights.
pub(crate) fn learn(
    objective: &dyn Objective,
    options: &GradientOptions,
    observer: &mut Observer<'_>,
) -> Result<Learned, LearnError> {
    let walk = RefCell::new(Walk::new(objective, options, observer));
    ascend(&walk, &equal_shares(objective.members()));
    for raised in RAISED {
        let start = walk.borrow_mut().start_again(raised);
        match start {
            Some(start) => ascend(&walk, &start),
            None => break,
        }
    }
    let walk = walk.into_inner();
    let ended = walk.end.unwrap_or(Ok(Ended::Stalled))?;
    let best = walk.best.ok_or(LearnError::Stopped)?;
    Ok(Learned::new(best, walk.passes, walk.history, ended))
}

/// One run of L-BFGS; how it went is in the walk, whatever L-BFGS itself says of its end.
fn ascend(walk: &RefCell<Walk<'_, '_>>, start: &[f64]) {
    let logits: Vec<f64> = start.iter().map(|weight| weight.ln()).collect();
    // Neither of its own criteria ends it: the gap does.
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY).with_tolerance_cost(0.0);
    let Ok(solver) = solver.and_then(|solver| solver.with_tolerance_grad(0.0)) else { return };
    let limit = walk.borrow().options.passes as u64;
    let executor = Executor::new(Downhill(walk), solver).ctrlc(false);
    let _ = executor.configure(|state| state.param(logits).max_iters(limit)).run();
}

/// The negative of the objective as argmin asks for it.
struct Downhill<'a, 'b, 'c>(&'a RefCell<Walk<'b, 'c>>);

impl CostFunction for Downhill<'_, '_, '_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, logits: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.0.borrow_mut().visit(logits)?.cost)
    }
}

impl Gradient for Downhill<'_, '_, '_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, logits: &Vec<f64>) -> Result<Vec<f64>, Error> {
        Ok(self.0.borrow_mut().visit(logits)?.gradient.clone())
    }
}

/// What makes argmin end a run.
#[derive(Debug, thiserror::Error)]
#[error("the run is over")]
struct Over;

/// All that was visited, over all runs.
struct Walk<'a, 'b> {
    objective: &'a dyn Objective,
    options: &'a GradientOptions,
    observer: &'a mut Observer<'b>,
    passes: usize,
    history: Vec<f64>,
    best: Option<Point>,
    run: Run,
    end: Option<Result<Ended, LearnError>>,
}

/// What belongs to one run.
#[derive(Default)]
struct Run {
    /// Value and gradient are asked for one after the other, at the same place.
    last: Option<Visit>,
    best: Option<Point>,
    /// Visits since the best of this run was found.
    idle: usize,
}

/// The negative objective and its gradient by the free numbers.
struct Visit {
    logits: Vec<f64>,
    cost: f64,
    gradient: Vec<f64>,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(
        objective: &'a dyn Objective,
        options: &'a GradientOptions,
        observer: &'a mut Observer<'b>,
    ) -> Self {
        let (passes, history) = (0, Vec::new());
        Self { objective, options, observer, passes, history, best: None, run: Run::default(), end: None }
    }
}

impl Walk<'_, '_> {
    fn visit(&mut self, logits: &[f64]) -> Result<&Visit, Over> {
        if self.run.last.as_ref().is_none_or(|last| last.logits != logits) {
            self.run.last = Some(self.evaluate(logits)?);
        }
        self.run.last.as_ref().ok_or(Over)
    }

    fn evaluate(&mut self, logits: &[f64]) -> Result<Visit, Over> {
        // A step without bounds is the line search's mistake: the next run begins at the best weights.
        if self.end.is_some() || self.run.idle > PATIENCE || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Over);
        }
        match self.differentiate(logits) {
            Ok((visit, point)) => {
                self.arrive(&point);
                Ok(visit)
            }
            Err(error) => {
                self.end = Some(Err(error));
                Err(Over)
            }
        }
    }

    fn differentiate(&self, logits: &[f64]) -> Result<(Visit, Point), LearnError> {
        let free = Var::from_slice(logits, logits.len(), &Device::Cpu)?;
        let exponentials = free.broadcast_sub(&free.max_keepdim(0)?)?.exp()?;
        let shares = exponentials.broadcast_div(&exponentials.sum_keepdim(0)?)?;
        let weights = shares.to_vec1::<f64>()?;
        let slope = self.objective.differentiate(&weights)?;
        // By the chain rule, the gradient by the free numbers is that of the shares along the slope.
        let along = (shares * Tensor::from_slice(&slope.gradient, logits.len(), &Device::Cpu)?)?.sum_all()?;
        let gradient = match along.backward()?.get(&free) {
            Some(gradient) => gradient.neg()?.to_vec1()?,
            None => vec![0.0; logits.len()],
        };
        let visit = Visit { logits: logits.to_vec(), cost: -slope.mean_log_prob, gradient };
        Ok((visit, Point::new(weights, slope)))
    }

    fn arrive(&mut self, point: &Point) {
        self.passes += 1;
        self.run.idle += 1;
        if keep_better(&mut self.run.best, point) {
            self.run.idle = 0;
        }
        keep_better(&mut self.best, point);
        let best = self.best.as_ref().unwrap_or(point);
        let (passes, limit) = (self.passes, self.options.passes);
        let (mean_log_prob, duality_gap) = (best.slope.mean_log_prob, Some(best.gap));
        let progress = Progress { part: 0, parts: 1, passes, limit, best: mean_log_prob, duality_gap };
        self.history.push(mean_log_prob);
        if best.gap <= self.options.tolerance {
            self.end = Some(Ok(Ended::Converged));
        } else if let ControlFlow::Break(()) = (self.observer)(&progress) {
            self.end = Some(Ok(Ended::Stopped));
        } else if passes >= limit {
            self.end = Some(Ok(Ended::Budget));
        }
    }

    /// Where the next run begins; `None` where there is to be none.
    fn start_again(&mut self, raised: f64) -> Option<Vec<f64>> {
        if self.end.is_some() {
            return None;
        }
        self.run = Run::default();
        let best = self.best.as_ref()?;
        let level: f64 =
            best.weights.iter().zip(&best.slope.gradient).map(|(weight, slope)| weight * slope).sum();
        let start = best.weights.iter().zip(&best.slope.gradient).map(|(weight, slope)| {
            // Weights have logarithms where they are not 0.
            if *slope > level { weight.max(raised) } else { weight.max(f64::MIN_POSITIVE) }
        });
        let mut start: Vec<f64> = start.collect();
        normalize(&mut start);
        Some(start)
    }
}

/// Whether the point is better than what was kept; then it is kept.
fn keep_better(kept: &mut Option<Point>, point: &Point) -> bool {
    let is_better = kept.as_ref().is_none_or(|kept| point.is_uphill_from(kept));
    if is_better {
        *kept = Some(point.clone());
    }
    is_better
}

#[cfg(test)]
mod tests;
