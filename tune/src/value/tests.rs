//! Shapley's axioms, figures by hand, and values that don't exist.

use proptest::prelude::*;

use super::*;
use crate::em::EmOptions;
use crate::learned::unobserved;
use crate::log_probs::LogProbs;
use crate::sets::{SetWeights, learn_sets, surviving_sets};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|member| format!("m{member}")).collect()
}

/// Sets with given values.
fn sets(members: usize, value: impl Fn(&[usize]) -> f64) -> Sets {
    let set = |members: Vec<usize>| SetWeights {
        weights: crate::equal_shares(members.len()),
        mean_log_prob: value(&members),
        perplexity: (-value(&members)).exp(),
        duality_gap: 0.0,
        impossible_tokens: 0,
        members,
    };
    Sets { members: names(members), sets: surviving_sets(members).into_iter().map(set).collect() }
}

fn learned(rows: &[Vec<f64>]) -> Sets {
    let log_probs = LogProbs::new(names(rows[0].len()), rows).unwrap();
    learn_sets(&log_probs, &EmOptions::default(), &mut unobserved).unwrap()
}

#[test]
fn two_members_are_as_by_hand() {
    // v(nobody) = -ln 4; alone -1.0 and -1.2; together -0.9.
    let values = sets(2, |members| match members {
        [0] => -1.0,
        [1] => -1.2,
        _ => -0.9,
    });
    let values = member_values(&values, 4).unwrap();
    let nobody = -4.0_f64.ln();
    assert_eq!((values.all, values.nobody), (-0.9, nobody));
    let [first, second] = &values.members[..] else { panic!("{values:?}") };
    assert!((first.leave_one_out - 0.3).abs() < 1e-12 && (second.leave_one_out - 0.1).abs() < 1e-12);
    assert!((first.perplexity_without - 1.2_f64.exp()).abs() < 1e-12);
    assert!((first.perplexity_with - 0.9_f64.exp()).abs() < 1e-12);
    // In one order a member comes to nobody, in the other to the other member.
    assert!((first.shapley.unwrap() - 0.5 * ((-1.0 - nobody) + 0.3)).abs() < 1e-12);
    assert!((second.shapley.unwrap() - 0.5 * ((-1.2 - nobody) + 0.1)).abs() < 1e-12);
    assert_eq!((first.name.as_str(), second.name.as_str()), ("m0", "m1"));
}

#[test]
fn one_member_brings_everything() {
    let values = member_values(&sets(1, |_| -2.0), 10).unwrap();
    let expected = -2.0 + 10.0_f64.ln();
    assert!((values.members[0].leave_one_out - expected).abs() < 1e-12);
    assert!((values.members[0].shapley.unwrap() - expected).abs() < 1e-12);
    assert!((values.members[0].perplexity_without - 10.0).abs() < 1e-9);
}

#[test]
fn a_game_in_which_values_add_up_gives_everybody_their_own() {
    let own = [0.3, 0.0, 0.5, 0.1];
    let nobody = -7.0_f64.ln();
    let values = sets(4, |members| nobody + members.iter().map(|member| own[*member]).sum::<f64>());
    for (member, own) in member_values(&values, 7).unwrap().members.iter().zip(own) {
        assert!((member.shapley.unwrap() - own).abs() < 1e-12 && (member.leave_one_out - own).abs() < 1e-12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn shapley_values_are_shares_of_the_whole(
        rows in prop::collection::vec(prop::collection::vec(-6.0..-0.05_f64, 4), 5..30),
    ) {
        let values = member_values(&learned(&rows), 50).unwrap();
        let sum: f64 = values.members.iter().filter_map(|member| member.shapley).sum();
        prop_assert!((sum - (values.all - values.nobody)).abs() < 1e-10);
        // Nobody is missed by less than nothing: the others could give it no weight.
        prop_assert!(values.members.iter().all(|member| member.leave_one_out > -1e-10));
    }

    #[test]
    fn a_copy_is_worth_what_the_original_is_and_neither_is_missed(
        rows in prop::collection::vec(prop::collection::vec(-6.0..-0.05_f64, 3), 5..30),
    ) {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| vec![row[0], row[1], row[0], row[2]]).collect();
        let values = member_values(&learned(&rows), 50).unwrap();
        let (original, copy) = (&values.members[0], &values.members[2]);
        prop_assert!((original.shapley.unwrap() - copy.shapley.unwrap()).abs() < 1e-9);
        prop_assert!(original.leave_one_out.abs() < 1e-9 && copy.leave_one_out.abs() < 1e-9);
    }
}

#[test]
fn beyond_eight_members_there_are_no_shapley_values() {
    let values = member_values(&sets(9, |members| -3.0 + 0.1 * members.len() as f64), 50).unwrap();
    assert_eq!(values.members.len(), 9);
    for member in values.members {
        assert_eq!(member.shapley, None);
        assert!((member.leave_one_out - 0.1).abs() < 1e-12);
    }
}

#[test]
fn values_that_don_t_exist_are_refused() {
    let learned = learned(&[vec![-1.0, f64::NEG_INFINITY], vec![-1.0, -0.5]]);
    let refused = |sets: &Sets, vocab_size| member_values(sets, vocab_size).unwrap_err().to_string();
    assert_eq!(
        refused(&learned, 10),
        "1 tokens have probability zero under m1; allowed: tokens that every member gives more (leave the others out)"
    );
    assert_eq!(refused(&learned, 0), "a vocabulary of 0 tokens; allowed: at least 1");
    let mut incomplete = sets(3, |_| -1.0);
    incomplete.sets.retain(|set| set.members != [0, 2]);
    assert_eq!(
        refused(&incomplete, 10),
        "there are no weights for the members m0, m2; allowed: all sets that may survive"
    );
}
