//! The vote as it is learned beside the vote as it is served: one winner, whatever the rows. Knows nothing about how thresholds
//! and weights are chosen.

#![allow(clippy::unwrap_used)]

use chorus_coordinator::fusion::{Fused, Fusion, Row, Rule, Scratch, fuse};
use chorus_simd::norm;
use chorus_tune::vote::{Candidates, TokenCandidates};

/// Rows of few different logits, so that votes and mixtures are often equal; now and then one member's logits are another's.
fn rows(random: &mut fastrand::Rng, members: usize, vocabulary_size: usize) -> Vec<Vec<f32>> {
    let coarse = random.bool();
    let mut logit = || {
        let logit = 12.0 * (random.f32() - 0.5);
        if coarse { logit.round() } else { logit }
    };
    let mut rows: Vec<Vec<f32>> =
        (0..members).map(|_| (0..vocabulary_size).map(|_| logit()).collect()).collect();
    if random.bool() {
        rows[members - 1] = rows[0].clone();
    }
    rows
}

#[test]
fn the_learned_vote_is_the_served_vote() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut scratch = Scratch::default();
    let (mut tied, mut averaged) = (0, 0);
    for _ in 0..4000 {
        let (members, vocabulary_size) = (random.usize(1..5), random.usize(1..12));
        let rows = rows(&mut random, members, vocabulary_size);
        let norms: Vec<_> = rows.iter().map(|row| norm(row)).collect();
        let mut weight = || if random.u8(..5) == 0 { 0.0 } else { random.f64() };
        let mut weights: Vec<f64> = (0..members).map(|_| weight()).collect();
        weights[0] += 0.1;
        let threshold = if random.u8(..8) == 0 { 0.0 } else { random.f64() };
        let voting = weights.iter().zip(&rows).zip(&norms);
        let voting: Vec<(f64, Row<'_>)> = voting
            .map(|((weight, row), norm)| (*weight, Row::new(row, *norm, vocabulary_size).unwrap()))
            .collect();
        let fusion = Fusion { rule: Rule::ThresholdVote, threshold };
        let Fused::Winner(served) = fuse(&fusion, &voting, &mut scratch).unwrap() else { panic!("a vote") };

        let ids: Vec<u32> = (0..vocabulary_size as u32).collect();
        let log_prob = |id: usize, member: usize| norms[member].log_prob(rows[member][id]);
        let log_probs = (0..vocabulary_size).flat_map(|id| (0..members).map(move |member| (id, member)));
        let log_probs: Vec<f64> = log_probs.map(|(id, member)| log_prob(id, member)).collect();
        let mut text = Candidates::new(members).unwrap();
        text.push(TokenCandidates { ids: &ids, log_probs: &log_probs, target: 0 }).unwrap();
        let learned = text.winner(0, threshold, &weights).unwrap().unwrap();

        let context = format!("{threshold} {weights:?} {rows:?}");
        assert_eq!((learned.id, learned.votes as u32), (served.id, served.votes), "{context}");
        assert_eq!(learned.by_weighted_average(), served.by_weighted_average, "{context}");
        assert_eq!(Some(learned.log_prob), served.mixture.log_prob(served.id), "{context}");
        tied += usize::from(ids.iter().filter(|id| served.votes_for(**id) == served.votes).count() > 1);
        averaged += usize::from(served.by_weighted_average);
    }
    // Both ways of deciding without a majority came up.
    assert!(tied > 1000 && averaged > 500, "{tied} {averaged}");
}
