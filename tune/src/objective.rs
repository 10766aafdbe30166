//! What a method maximises: a concave mean log-probability on the simplex. Knows no method and no rule.

use crate::error::LearnError;

/// A mean log-probability as a function of the members' weights, concave on the simplex.
pub(crate) trait Objective {
    /// How many weights there are.
    fn members(&self) -> usize;

    /// The mean log-probability in nats a token; the weights are at least 0 and sum to one.
    fn mean_log_prob(&self, weights: &[f64]) -> Result<f64, LearnError>;

    /// The same with the derivative by every weight, from candle's autograd.
    fn differentiate(&self, weights: &[f64]) -> Result<Slope, LearnError>;
}

/// An objective's value and derivative at a point.
#[derive(Clone, Debug)]
pub(crate) struct Slope {
    /// In nats a token.
    pub(crate) mean_log_prob: f64,
    /// By every weight, as if they were free.
    pub(crate) gradient: Vec<f64>,
}

impl Slope {
    /// How far the value at these weights is from the largest one, at most, in nats a token.
    ///
    /// F is concave, so it lies below its tangent: for every b on the simplex,
    /// F(b) - F(a) <= sum_j (b_j - a_j) dF/da_j <= max_j dF/da_j - sum_j a_j dF/da_j
    /// (the gap of Frank and Wolfe; Jaggi 2013, "Revisiting Frank-Wolfe", section 2).
    pub(crate) fn duality_gap(&self, weights: &[f64]) -> f64 {
        let along: f64 = self.gradient.iter().zip(weights).map(|(slope, weight)| slope * weight).sum();
        let steepest = self.gradient.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let gap = steepest - along;
        // Where a token has probability zero, any other weights may be better by any amount.
        if gap.is_nan() || self.mean_log_prob == f64::NEG_INFINITY { f64::INFINITY } else { gap.max(0.0) }
    }
}

/// What rounding may make of equal values, as a share of them.
const ROUNDING: f64 = 4e-15;

/// Weights with what was found out about them.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) weights: Vec<f64>,
    pub(crate) slope: Slope,
    pub(crate) gap: f64,
}

impl Point {
    pub(crate) fn new(weights: Vec<f64>, slope: Slope) -> Self {
        Self { gap: slope.duality_gap(&weights), slope, weights }
    }

    /// Whether one should rather be here than there. Near the optimum values differ by less than rounding does; then the smaller
    /// gap is what counts.
    pub(crate) fn is_uphill_from(&self, there: &Self) -> bool {
        let gain = self.slope.mean_log_prob - there.slope.mean_log_prob;
        let rounding = ROUNDING * there.slope.mean_log_prob.abs().max(1.0);
        gain > rounding || (gain >= -rounding && self.gap < there.gap)
    }
}
