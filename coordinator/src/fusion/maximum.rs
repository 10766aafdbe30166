//! `logit_max`: P = softmax(max_j z_j). It compares raw logits, so it is the one rule that a constant added to a single
//! member's logits changes. Knows nothing about weights.

use super::{Distribution, Row};

/// The softmax of every token's largest logit.
pub(super) fn softmax_of_maximum(rows: &[(f64, Row<'_>)]) -> Distribution {
    let tokens = rows.first().map_or(0, |(_, row)| row.len());
    let mut scores = vec![f32::MIN; tokens];
    for (_, row) in rows {
        for (score, logit) in scores.iter_mut().zip(row.logits()) {
            *score = score.max(*logit);
        }
    }
    Distribution::softmax(scores.into_iter().map(f64::from).collect())
}
