//! `log_linear` and `logit_mean`: P proportional to prod_j P_j^a_j. Knows nothing about the other rules.

use super::{Distribution, Row};

/// The geometric mixture of rows with these shares (sum to one). The members' log-sum-exps cancel in the
/// normalisation, so the logits are averaged as they are, in f64.
pub(super) fn mixture(shared: &[(f64, Row<'_>)]) -> Distribution {
    let tokens = shared.first().map_or(0, |(_, row)| row.len());
    let mut scores = vec![0.0_f64; tokens];
    for (share, row) in shared {
        for (score, logit) in scores.iter_mut().zip(row.logits()) {
            *score += share * f64::from(*logit);
        }
    }
    Distribution::softmax(scores)
}
