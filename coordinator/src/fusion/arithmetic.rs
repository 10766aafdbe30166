//! `weighted_average` of one token: P(w) = sum_j a_j P_j(w). Knows nothing about the other rules, or about who asks.

/// Below this a sum of probabilities may have lost members to underflow, so it is formed again from logarithms.
const SMALLEST_SUM: f64 = 1e-290;

/// log sum_j a_j exp(l_j) for one token, from (a_j, l_j) in member order, with shares a_j that are positive and sum to one.
/// Alone, a member keeps its number. Every plan forms a mixture's logarithm here, so they all have the same bits.
pub(super) fn log_of_mixture(column: &(impl Iterator<Item = (f64, f64)> + Clone)) -> f64 {
    let mut members = column.clone();
    if let (Some((_, only)), None) = (members.next(), members.next()) {
        return only.min(0.0);
    }
    // Rounding must not make a probability larger than 1.
    let column = || column.clone().map(|(share, log_prob)| (share, log_prob.min(0.0)));
    let sum = column().fold(0.0, |sum, (share, log_prob)| sum + share * log_prob.exp());
    if sum > SMALLEST_SUM {
        return sum.ln().min(0.0);
    }
    let terms = || column().map(|(share, log_prob)| share.ln() + log_prob);
    let largest = terms().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms().map(|term| (term - largest).exp()).sum();
    largest + sum.ln()
}
