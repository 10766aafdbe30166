//! The vote against its definition, thresholds and weights by hand.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::learned::{Progress, unobserved};

/// A candidate and what two members give to it.
type Row = (u32, [f64; 2]);

/// The candidates of some tokens, and the tokens that came.
fn candidates(tokens: &[(&[Row], u32)]) -> Candidates {
    let mut all = Candidates::new(2).unwrap();
    for (rows, target) in tokens {
        let ids: Vec<u32> = rows.iter().map(|(id, _)| *id).collect();
        let log_probs: Vec<f64> = rows.iter().flat_map(|(_, row)| row.map(f64::ln)).collect();
        all.push(TokenCandidates { ids: &ids, log_probs: &log_probs, target: *target }).unwrap();
    }
    all
}

fn winner(rows: &[Row], threshold: f64, weights: [f64; 2]) -> Winner {
    candidates(&[(rows, 0)]).winner(0, threshold, &weights).unwrap().unwrap()
}

#[test]
fn most_votes_win_then_the_likelier_then_the_lower_id() {
    let rows = [(7, [0.3, 0.3]), (8, [0.6, 0.05]), (9, [0.05, 0.6])];
    let won = winner(&rows, 0.2, [1.0, 1.0]);
    assert_eq!((won.id, won.votes), (7, 2));
    // Above 0.3 one vote each for 8 and 9: the weights decide, and of equal ones the lower id.
    assert_eq!(winner(&rows, 0.4, [1.0, 2.0]).id, 9);
    assert_eq!(winner(&rows, 0.4, [1.0, 1.0]).id, 8);
    // Nobody has a vote: the weighted average's argmax.
    let won = winner(&rows, 0.9, [1.0, 3.0]);
    assert_eq!((won.id, won.by_weighted_average()), (9, true));
    assert!((won.log_prob - (0.25 * 0.05 + 0.75 * 0.6_f64).ln()).abs() < 1e-12);
}

#[test]
fn a_vote_takes_more_than_the_threshold_and_no_weight() {
    // A probability that equals the threshold is no vote.
    let won = winner(&[(1, [0.5, 0.4]), (2, [0.4, 0.1])], 0.5, [1.0, 1.0]);
    assert_eq!((won.id, won.votes), (1, 0));
    // Whoever has no weight votes, too.
    let won = winner(&[(1, [0.9, 0.1]), (2, [0.05, 0.8])], 0.5, [0.0, 1.0]);
    assert_eq!((won.id, won.votes), (2, 1));
    let won = winner(&[(1, [0.9, 0.6]), (2, [0.05, 0.3])], 0.5, [0.0, 1.0]);
    assert_eq!((won.id, won.votes), (1, 2));
    // Zero is below every probability but zero.
    let won = winner(&[(1, [1e-300, 0.9]), (2, [0.5, 0.0])], 0.0, [1.0, 0.0]);
    assert_eq!((won.id, won.votes), (1, 2));
}

proptest! {
    /// The definition, candidate by candidate.
    #[test]
    fn the_winner_is_the_one_of_the_definition(
        rows in prop::collection::vec(prop::array::uniform2(prop_oneof![0.0..1.0_f64, Just(0.25), Just(0.0)]), 1..8),
        threshold in prop_oneof![0.0..1.0_f64, Just(0.0), Just(0.25)],
        weights in prop_oneof![prop::array::uniform2(0.01..1.0_f64), Just([1.0, 1.0]), Just([0.0, 1.0])],
    ) {
        let rows: Vec<Row> = rows.into_iter().enumerate().map(|(id, row)| (97 * (id as u32 + 1) % 11, row)).collect();
        let shares = crate::shares(&weights, 2).unwrap();
        let key = |(_, row): &Row| {
            let votes = row.iter().filter(|probability| probability.ln() > threshold.ln()).count();
            (votes, shares[0] * row[0] + shares[1] * row[1])
        };
        let won = winner(&rows, threshold, weights);
        let (votes, mixture) = key(rows.iter().find(|(id, _)| *id == won.id).unwrap());
        prop_assert_eq!(won.votes, votes);
        for other in &rows {
            let (other_votes, other_mixture) = key(other);
            prop_assert!(other_votes <= votes);
            // Sums that are equal but for rounding have one logarithm or neighbouring ones.
            if other_votes == votes && other.0 != won.id {
                prop_assert!(other_mixture <= mixture * (1.0 + 1e-12));
                prop_assert!(other.1 != rows.iter().find(|(id, _)| *id == won.id).unwrap().1 || other.0 > won.id);
            }
        }
    }
}

/// Three tokens: the first is decided by votes from 0.1 to 0.3, the second by any, the third only by the average.
fn three() -> Candidates {
    candidates(&[
        (&[(1, [0.3, 0.35]), (2, [0.65, 0.05])], 1),
        (&[(3, [0.9, 0.95]), (4, [0.05, 0.01])], 3),
        (&[(5, [0.45, 0.2]), (6, [0.1, 0.4])], 5),
    ])
}

#[test]
fn the_threshold_that_is_right_most_often_is_chosen() {
    let choice = three().choose_threshold(&[0.0, 0.2, 0.5, 0.7], &[1.0, 1.0]).unwrap();
    let curve: Vec<(f64, f64, f64)> = choice
        .curve
        .iter()
        .map(|point| (point.threshold, point.accuracy * 3.0, point.by_weighted_average * 3.0))
        .collect();
    // At 0 everybody votes for everything and the average decides: 2 has 0.35, 1 has 0.325. At 0.2 the third token's votes are
    // equal, one each. At 0.5 only 2 has a vote for the first token. At 0.7 nobody has, for the first and the third.
    assert_eq!(curve, [(0.0, 2.0, 0.0), (0.2, 3.0, 0.0), (0.5, 2.0, 1.0), (0.7, 2.0, 2.0)]);
    assert_eq!(choice.best, choice.curve[1]);
    assert_eq!(three().hold(0.2, &[1.0, 1.0]).unwrap(), choice.best);
}

#[test]
fn of_equally_good_thresholds_votes_count_more_and_then_the_lower_one_wins() {
    let best = three().choose_threshold(&[0.7, 0.5, 0.6], &[1.0, 1.0]).unwrap().best;
    assert_eq!((best.threshold, best.by_weighted_average), (0.5, 1.0 / 3.0));
}

#[test]
fn weights_are_found_that_decide_right() {
    // Contested tokens on which bass is right; one on which alto is, by more.
    let bass = [(1, [0.5, 0.3]), (2, [0.4, 0.45])];
    let alto = [(3, [0.8, 0.25]), (4, [0.15, 0.6])];
    let text = candidates(&[(&bass, 2), (&bass, 2), (&bass, 2), (&alto, 3)]);
    let equal = text.hold(0.1, &[1.0, 1.0]).unwrap();
    assert_eq!(equal.accuracy, 1.0);
    let text = candidates(&[(&[(1, [0.5, 0.3]), (2, [0.35, 0.4])], 2), (&alto, 3)]);
    assert_eq!(text.hold(0.1, &[1.0, 1.0]).unwrap().accuracy, 0.5);
    // Right on both takes 0.5 a + 0.3 b < 0.35 a + 0.4 b and 0.8 a + 0.25 b > 0.15 a + 0.6 b: 0.35 < a < 0.4.
    let learned = text.learn_weights(0.1, &[], &mut unobserved).unwrap();
    assert_eq!((learned.accuracy, learned.equal_accuracy), (1.0, 0.5));
    assert!((learned.weights[0] - 0.375).abs() < 1e-12, "{learned:?}");
    assert_eq!(text.hold(0.1, &learned.weights).unwrap().accuracy, 1.0);
    assert!(learned.margin > 0.0 && learned.lines >= 3);
}

#[test]
fn equal_weights_stay_where_nothing_is_more_often_right() {
    // Everything is decided by votes.
    let text =
        candidates(&[(&[(1, [0.9, 0.9]), (2, [0.01, 0.02])], 1), (&[(1, [0.9, 0.9]), (2, [0.01, 0.02])], 2)]);
    let starts = [vec![0.9, 0.1]];
    let learned = text.learn_weights(0.5, &starts, &mut unobserved).unwrap();
    assert_eq!(
        (learned.weights, learned.accuracy, learned.contested, learned.margin),
        (vec![0.5, 0.5], 0.5, 0.0, 0.0)
    );
    // Other weights have a larger margin and are right as often: not worth it.
    let text = candidates(&[(&[(1, [0.8, 0.6]), (2, [0.05, 0.2])][..], 1); 3]);
    let learned = text.learn_weights(0.01, &[], &mut unobserved).unwrap();
    assert_eq!((learned.weights, learned.contested), (vec![0.5, 0.5], 1.0));
    assert!((learned.margin - (0.7 - 0.125)).abs() < 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn learned_weights_are_never_worse_than_equal_ones_or_a_start(
        tokens in prop::collection::vec((prop::collection::vec(prop::array::uniform2(0.001..1.0_f64), 2..5), 0_u32..5), 1..40),
        threshold in 0.0..0.6_f64, start in prop::array::uniform2(0.01..1.0_f64),
    ) {
        let tokens: Vec<(Vec<Row>, u32)> = tokens
            .into_iter()
            .map(|(rows, target)| ((0..).zip(rows).collect(), target))
            .collect();
        let borrowed: Vec<(&[Row], u32)> = tokens.iter().map(|(rows, target)| (&rows[..], *target)).collect();
        let text = candidates(&borrowed);
        let learned = text.learn_weights(threshold, &[start.to_vec()], &mut unobserved).unwrap();
        let accuracy = |weights: &[f64]| text.hold(threshold, weights).unwrap().accuracy;
        prop_assert_eq!(learned.accuracy, accuracy(&learned.weights));
        prop_assert_eq!(learned.equal_accuracy, accuracy(&[0.5, 0.5]));
        prop_assert!(learned.accuracy >= learned.equal_accuracy && learned.accuracy >= accuracy(&start));
        if learned.accuracy == learned.equal_accuracy {
            prop_assert_eq!(learned.weights, [0.5, 0.5]);
        }
    }
}

#[test]
fn the_observer_ends_the_search() {
    let text = candidates(&[(&[(1, [0.5, 0.3]), (2, [0.35, 0.4])], 2)]);
    let mut parts = 0;
    let mut observer = |progress: &Progress| {
        assert_eq!(progress.parts, 3);
        parts += 1;
        ControlFlow::Break(())
    };
    let learned = text.learn_weights(0.1, &[], &mut observer).unwrap();
    assert_eq!((parts, learned.accuracy), (1, 1.0));
}

#[test]
fn tokens_that_can_t_be_voted_on_are_refused_and_not_added() {
    let mut text = Candidates::new(2).unwrap();
    let mut refused = |ids: &[u32], log_probs: &[f64]| {
        text.push(TokenCandidates { ids, log_probs, target: 0 }).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], &[]), "token 0 has no candidates; allowed: at least one");
    assert_eq!(
        refused(&[1, 2], &[-1.0; 3]),
        "token 0 has 2 candidates and 3 log-probabilities; allowed: one for each and each of the 2 members"
    );
    assert_eq!(refused(&[5, 1, 5], &[-1.0; 6]), "token 0 has the candidate 5 twice; allowed: each id once");
    assert_eq!(
        refused(&[5, 6], &[-1.0, -1.0, -1.0, f64::NAN]),
        "member 1 gives candidate 6 of token 0 the log-probability NaN; allowed: a number of at most 0, or -inf"
    );
    assert!(refused(&[5], &[0.1, -1.0]).contains("0.1"));
    assert_eq!((text.tokens(), text.members(), text.token(0)), (0, 2, None));
    assert_eq!(Candidates::new(0).unwrap_err(), VoteError::NoMembers);
}

#[test]
fn thresholds_and_weights_have_a_range() {
    let text = three();
    for threshold in [1.0, -0.1, f64::NAN] {
        let error = text.hold(threshold, &[1.0, 1.0]).unwrap_err().to_string();
        assert_eq!(error, format!("a threshold of {threshold}; allowed: a number from 0 to 1, without 1"));
    }
    let error = text.hold(0.1, &[1.0]).unwrap_err().to_string();
    assert_eq!(error, "there are 1 weights for 2 members; allowed: one weight for each member");
    assert_eq!(text.choose_threshold(&[], &[1.0, 1.0]).unwrap_err(), VoteError::NoThresholds);
    let nothing = Candidates::new(2).unwrap();
    assert_eq!(nothing.hold(0.1, &[1.0, 1.0]).unwrap_err(), VoteError::NoTokens);
    assert_eq!(nothing.winner(0, 0.1, &[1.0, 1.0]), Ok(None));
    let error = text.learn_weights(0.1, &[vec![0.0, 0.0]], &mut unobserved).unwrap_err().to_string();
    assert_eq!(error, "every weight is 0; allowed: at least one weight above 0");
}

#[test]
fn a_mixture_is_formed_as_the_coordinator_does() {
    // Alone, a member keeps its number.
    assert_eq!(log_of_mixture(&[-0.1, -5.0], &[1.0, 0.0]), -0.1);
    let both = log_of_mixture(&[-0.1, -5.0], &[0.5, 0.5]);
    assert_eq!(both, (0.5 * (-0.1_f64).exp() + 0.5 * (-5.0_f64).exp()).ln());
    // Where probabilities underflow, from logarithms.
    let tiny = log_of_mixture(&[-800.0, -801.0], &[0.5, 0.5]);
    assert!((tiny - (-800.0 + (0.5 * (1.0 + (-1.0_f64).exp())).ln())).abs() < 1e-9);
    assert_eq!(log_of_mixture(&[f64::NEG_INFINITY; 2], &[0.5, 0.5]), f64::NEG_INFINITY);
}
