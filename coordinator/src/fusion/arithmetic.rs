//! `weighted_average`: P = sum_j a_j P_j. Knows nothing about the other rules.

use super::{Distribution, Row};

/// Below this a sum of probabilities may have lost members to underflow, so it is formed again from logarithms.
const SMALLEST_SUM: f64 = 1e-290;

/// The mixture of rows with these shares (positive, sum to one). One pass over each row, one exponential for each logit
/// and one logarithm for each token, in f64. With it comes what the probabilities of each row sum to.
pub(super) fn mixture(shared: &[(f64, Row<'_>)]) -> (Distribution, Vec<f64>) {
    let tokens = shared.first().map_or(0, |(_, row)| row.len());
    let mut sums = vec![0.0_f64; tokens];
    let add = |(share, row): &(f64, Row<'_>)| {
        let mut mass = 0.0;
        for (sum, log_prob) in sums.iter_mut().zip(row.log_probs()) {
            // Rounding must not make a probability larger than 1.
            let probability = log_prob.min(0.0).exp();
            *sum += share * probability;
            mass += probability;
        }
        mass
    };
    let masses = shared.iter().map(add).collect();
    for (id, sum) in (0..).zip(&mut sums) {
        let column =
            || shared.iter().filter_map(move |(share, row)| Some((*share, row.log_prob(id)?.min(0.0))));
        *sum = log_of_sum(*sum, column);
    }
    (Distribution::from_log_probs(sums), masses)
}

/// log sum_j a_j exp(l_j) for one token, from (a_j, l_j) in member order: the same bits as [`mixture`] gives. Alone, a
/// member keeps its number.
pub(super) fn log_of_mixture(column: &(impl Iterator<Item = (f64, f64)> + Clone)) -> f64 {
    let mut members = column.clone();
    if let (Some((_, only)), None) = (members.next(), members.next()) {
        return only.min(0.0);
    }
    let sum = column.clone().fold(0.0, |sum, (share, log_prob)| sum + share * log_prob.min(0.0).exp());
    log_of_sum(sum, || column.clone().map(|(share, l)| (share, l.min(0.0))))
}

/// The logarithm of a sum that may have underflowed. Rounding must not make a probability larger than 1.
fn log_of_sum<I: Iterator<Item = (f64, f64)>>(sum: f64, column: impl Fn() -> I) -> f64 {
    if sum > SMALLEST_SUM {
        return sum.ln().min(0.0);
    }
    let terms = || column().map(|(share, log_prob)| share.ln() + log_prob);
    let largest = terms().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms().map(|term| (term - largest).exp()).sum();
    largest + sum.ln()
}
