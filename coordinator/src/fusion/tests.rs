//! What every rule must hold for any rows and weights, and the rules against their formulas written down naively.

use chorus_simd::norm;
use proptest::prelude::*;

use super::{Distribution, FuseError, Fused, Fusion, Norm, Row, RowError, Rule, Winner, fuse, fuse_targets};

/// The exponentials of a log-sum-exp are taken in f32.
const F32: f64 = 5e-7;

#[derive(Clone, Debug)]
struct Member {
    weight: f64,
    logits: Vec<f32>,
}

impl Member {
    fn row(&self) -> Row<'_> {
        Row::new(&self.logits, norm(&self.logits), self.logits.len()).unwrap()
    }

    /// softmax in f64.
    fn probabilities(&self) -> Vec<f64> {
        let exps: Vec<f64> = self.logits.iter().map(|z| f64::from(*z).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|exp| exp / sum).collect()
    }
}

fn fused(rule: Rule, threshold: f64, members: &[Member]) -> Fused {
    let rows: Vec<(f64, Row<'_>)> = members.iter().map(|member| (member.weight, member.row())).collect();
    fuse(&Fusion { rule, threshold }, &rows).unwrap()
}

/// The fused distribution; of a vote the mixture.
fn distribution(rule: Rule, members: &[Member]) -> Distribution {
    match fused(rule, 0.1, members) {
        Fused::Distribution(distribution) => distribution,
        Fused::Winner(winner) => winner.mixture,
    }
}

fn vote(threshold: f64, members: &[Member]) -> Winner {
    match fused(Rule::ThresholdVote, threshold, members) {
        Fused::Winner(winner) => winner,
        Fused::Distribution(_) => panic!("a vote has no distribution"),
    }
}

fn naive(rule: Rule, members: &[Member]) -> Vec<f64> {
    let total: f64 = members.iter().map(|member| member.weight).sum();
    let unnormalised: Vec<f64> = (0..members[0].logits.len())
        .map(|id| {
            let z = |member: &Member| f64::from(member.logits[id]);
            let p = |member: &Member| member.probabilities()[id];
            let mean = members.iter().map(z).sum::<f64>() / members.len() as f64;
            match rule {
                Rule::WeightedAverage | Rule::ThresholdVote => {
                    members.iter().map(|m| m.weight / total * p(m)).sum()
                }
                Rule::LogLinear => members.iter().map(|m| p(m).powf(m.weight / total)).product(),
                Rule::LogitMean => mean.exp(),
                Rule::LogitMax => members.iter().map(z).fold(f64::MIN, f64::max).exp(),
            }
        })
        .collect();
    let sum: f64 = unnormalised.iter().sum();
    unnormalised.iter().map(|p| p / sum).collect()
}

fn assert_close(ours: &Distribution, expected: &[f64], tolerance: f64) {
    for (id, (ours, expected)) in ours.log_probs().iter().zip(expected).enumerate() {
        assert!((ours - expected).abs() < tolerance, "token {id}: {ours} and {expected}");
    }
}

/// Logits are multiples of 1/64, so that shifts by integers are exact in f32.
fn members() -> impl Strategy<Value = Vec<Member>> {
    (1..12_usize, 1..6_usize).prop_flat_map(|(vocabulary_size, members)| {
        let logits = prop::collection::vec(-1280..1280_i16, vocabulary_size);
        let weight = prop_oneof![4 => 0.01..10.0_f64, 1 => Just(0.0)];
        let member = (weight, logits).prop_map(|(weight, logits)| Member {
            weight,
            logits: logits.into_iter().map(|z| f32::from(z) / 64.0).collect(),
        });
        prop::collection::vec(member, members).prop_map(|mut members| {
            if members.iter().all(|member| member.weight == 0.0) {
                members[0].weight = 1.0;
            }
            members
        })
    })
}

proptest! {
    #[test]
    fn a_distribution_sums_to_one_and_no_log_probability_is_positive(members in members()) {
        for rule in Rule::ALL {
            let distribution = distribution(rule, &members);
            let sum: f64 = distribution.log_probs().iter().map(|l| l.exp()).sum();
            prop_assert!((sum - 1.0).abs() < F32, "{rule}: {sum}");
            prop_assert!(distribution.log_probs().iter().all(|l| l.is_finite() && *l <= 0.0));
        }
    }

    #[test]
    fn the_rules_are_their_formulas(members in members()) {
        for rule in Rule::ALL {
            let expected: Vec<f64> = naive(rule, &members).iter().map(|p| p.ln()).collect();
            assert_close(&distribution(rule, &members), &expected, F32);
        }
    }

    #[test]
    fn the_order_of_the_rows_changes_no_more_than_rounding(
        (members, arrival) in members().prop_flat_map(|members| {
            let order: Vec<usize> = (0..members.len()).collect();
            (Just(members), Just(order).prop_shuffle())
        }),
    ) {
        let unordered: Vec<Member> = arrival.iter().map(|place| members[*place].clone()).collect();
        for rule in Rule::ALL {
            // The session fuses in member order, so that not even the bits depend on it.
            let expected = distribution(rule, &members);
            assert_close(&distribution(rule, &unordered), expected.log_probs(), 1e-12);
        }
    }

    #[test]
    fn one_member_is_that_member_to_the_bit(members in members()) {
        let mut member = members[0].clone();
        member.weight = 0.3;
        for rule in Rule::ALL {
            let alone = distribution(rule, std::slice::from_ref(&member));
            prop_assert_eq!(alone, member.row().distribution());
        }
        let mut others_count_nothing = members.clone();
        others_count_nothing.iter_mut().for_each(|other| other.weight = 0.0);
        others_count_nothing[0].weight = 0.3;
        for rule in Rule::ALL.into_iter().filter(|rule| rule.uses_weights()) {
            prop_assert_eq!(distribution(rule, &others_count_nothing), member.row().distribution());
        }
    }

    #[test]
    fn identical_members_are_one_member(members in members(), copies in 2..5_usize) {
        let member = Member { weight: 0.7, logits: members[0].logits.clone() };
        let alone = member.row().distribution();
        for rule in Rule::ALL {
            let together = distribution(rule, &vec![member.clone(); copies]);
            assert_close(&together, alone.log_probs(), F32);
        }
    }

    #[test]
    fn the_survivors_weights_are_renormalised(members in members(), lost in 0..6_usize) {
        let mut survivors: Vec<Member> = members.iter().enumerate()
            .filter(|(place, _)| *place != lost).map(|(_, member)| member.clone()).collect();
        if survivors.iter().all(|member| member.weight == 0.0) {
            survivors.push(Member { weight: 0.2, logits: members[0].logits.clone() });
        }
        let total: f64 = survivors.iter().map(|member| member.weight).sum();
        let renormalised: Vec<Member> = survivors.iter().map(|member| Member {
            weight: member.weight / total,
            logits: member.logits.clone(),
        }).collect();
        for rule in Rule::ALL {
            let expected = distribution(rule, &renormalised);
            assert_close(&distribution(rule, &survivors), expected.log_probs(), 1e-12);
        }
    }

    #[test]
    fn logit_mean_is_log_linear_with_equal_weights(members in members()) {
        let mut equal = members;
        equal.iter_mut().for_each(|member| member.weight = 0.3);
        prop_assert_eq!(fused(Rule::LogitMean, 0.1, &equal), fused(Rule::LogLinear, 0.1, &equal));
    }

    #[test]
    fn a_constant_added_to_a_member_s_logits_changes_nothing(
        members in members(), shifts in prop::collection::vec(-20..20_i8, 5),
    ) {
        let shifted = |by: &dyn Fn(usize) -> f32| -> Vec<Member> {
            let shift = |(place, member): (usize, &Member)| Member {
                weight: member.weight,
                logits: member.logits.iter().map(|z| z + by(place)).collect(),
            };
            members.iter().enumerate().map(shift).collect()
        };
        for rule in Rule::ALL {
            // Raw logits are compared by logit_max alone, so there all members are shifted together.
            let by = |place: usize| f32::from(shifts[if rule == Rule::LogitMax { 0 } else { place }]);
            let expected = distribution(rule, &members);
            assert_close(&distribution(rule, &shifted(&by)), expected.log_probs(), 2.0 * F32);
        }
    }

    #[test]
    fn scoring_by_targets_is_scoring_by_rows_to_the_bit(members in members()) {
        let dense = distribution(Rule::WeightedAverage, &members);
        let own: Vec<Distribution> = members.iter().map(|member| member.row().distribution()).collect();
        let targets: Vec<(f64, &[f64])> =
            members.iter().zip(&own).map(|(member, own)| (member.weight, own.log_probs())).collect();
        prop_assert_eq!(fuse_targets(&targets).unwrap(), dense.log_probs());
    }

    #[test]
    fn the_vote_is_its_formula(members in members(), threshold in 0.0..1.0_f64) {
        let winner = vote(threshold, &members);
        let probabilities: Vec<Vec<f64>> = members.iter().map(|m| m.row().distribution().log_probs()
            .iter().map(|l| l.exp()).collect()).collect();
        let votes: Vec<u32> = (0..members[0].logits.len())
            .map(|id| probabilities.iter().filter(|p| p[id] > threshold).count() as u32).collect();
        let mixture = winner.mixture.log_probs();
        let mut order: Vec<usize> = (0..votes.len()).collect();
        // A stable sort keeps the lower id in front.
        order.sort_by(|a, b| votes[*b].cmp(&votes[*a]).then(mixture[*b].total_cmp(&mixture[*a])));
        prop_assert_eq!(winner.id as usize, order[0]);
        prop_assert_eq!(winner.votes, votes[order[0]]);
        prop_assert_eq!(winner.by_weighted_average, votes.iter().all(|votes| *votes == 0));
        let top: Vec<usize> = winner.top(votes.len()).iter().map(|candidate| candidate.id as usize).collect();
        prop_assert_eq!(top, order);
        if winner.by_weighted_average {
            prop_assert_eq!(winner.id, winner.mixture.argmax());
        }
    }
}

fn member(weight: f64, logits: &[f32]) -> Member {
    Member { weight, logits: logits.to_vec() }
}

#[test]
fn a_vocabulary_of_one_token_is_certain_of_it() {
    let members = [member(1.0, &[3.5]), member(2.0, &[-7.0])];
    for rule in Rule::ALL {
        assert_eq!(distribution(rule, &members).log_probs(), [0.0], "{rule}");
    }
    assert_eq!(vote(0.5, &members).votes, 2);
}

#[test]
fn a_probability_that_underflows_keeps_a_finite_logarithm() {
    let members = [member(1.0, &[0.0, -2000.0]), member(3.0, &[0.0, -2001.0])];
    let expected = (0.25 + 0.75 * (-1.0_f64).exp()).ln() - 2000.0;
    let distribution = distribution(Rule::WeightedAverage, &members);
    assert!((distribution.log_probs()[1] - expected).abs() < 1e-9);
    let targets = fuse_targets(&[(1.0, &[-2000.0]), (3.0, &[-2001.0])]).unwrap();
    assert_eq!(targets, distribution.log_probs()[1..]);
}

#[test]
fn weights_of_any_size_are_shared() {
    let logits: [&[f32]; 2] = [&[1.0, 0.0], &[0.0, 1.0]];
    for scale in [f64::MAX, 1e-300, f64::MIN_POSITIVE] {
        let members = logits.map(|logits| member(scale, logits));
        let log_probs = distribution(Rule::WeightedAverage, &members);
        assert_close(&log_probs, &[0.5_f64.ln(); 2], 1e-6);
    }
}

#[test]
fn at_threshold_0_everybody_votes_for_everything_and_the_mixture_decides() {
    let winner = vote(0.0, &[member(0.9, &[0.0, 800.0, -800.0]), member(0.1, &[9.0, 0.0, 0.0])]);
    assert_eq!((winner.id, winner.votes, winner.by_weighted_average), (1, 2, false));
    assert_eq!(winner.votes_for(2), 2);
    assert_eq!(winner.votes_for(3), 0, "outside the vocabulary");
}

#[test]
fn near_threshold_1_nobody_votes_and_the_mixture_decides() {
    let winner = vote(0.999, &[member(1.0, &[0.0, 1.0, 0.0]), member(1.0, &[0.0, 0.0, 3.0])]);
    assert_eq!((winner.id, winner.votes, winner.by_weighted_average), (2, 0, true));
}

#[test]
fn votes_count_more_than_probability_and_even_for_members_of_weight_0() {
    // Token 1 is the mixture's favourite; token 0 has two votes.
    let members = [member(8.0, &[-2.0, 4.0]), member(1.0, &[1.0, 0.0]), member(0.0, &[1.0, 0.0])];
    let winner = vote(0.5, &members);
    assert_eq!((winner.id, winner.votes), (0, 2));
    assert_eq!(winner.mixture.argmax(), 1);
}

#[test]
fn equal_votes_go_to_the_likelier_and_then_to_the_lower_id() {
    let likelier = vote(0.5, &[member(1.0, &[2.0, 0.0]), member(2.0, &[0.0, 2.0])]);
    assert_eq!((likelier.id, likelier.votes), (1, 1));
    let lower = vote(0.3, &[member(1.0, &[0.0, 5.0, 5.0])]);
    assert_eq!((lower.id, lower.votes), (1, 1));
    let lowest = vote(0.9, &[member(1.0, &[2.0, 2.0])]);
    assert_eq!((lowest.id, lowest.by_weighted_average), (0, true));
}

#[test]
fn a_row_whose_probabilities_do_not_sum_to_one_is_named() {
    let (honest, loud) = ([1.0, 0.0], [0.0, 2.0]);
    for rule in Rule::ALL {
        for (weight, off) in [(1.0, -0.1), (1.0, 0.1), (0.0, 0.1)] {
            let lie = Norm { log_sum: norm(&loud).log_sum + off, ..norm(&loud) };
            let rows = [
                (1.0, Row::new(&honest, norm(&honest), 2).unwrap()),
                (weight, Row::new(&loud, lie, 2).unwrap()),
                (2.0, Row::new(&honest, norm(&honest), 2).unwrap()),
            ];
            let error = fuse(&Fusion { rule, threshold: 0.1 }, &rows).unwrap_err();
            assert!(
                matches!(error, FuseError::Unsound { place: 1, error: RowError::Mass { .. } }),
                "{rule}: {error}"
            );
        }
    }
}

#[test]
fn what_can_t_be_fused_is_an_error() {
    let short = member(1.0, &[0.0]);
    let long = member(1.0, &[0.0, 0.0]);
    let silent = member(0.0, &[0.0]);
    for rule in Rule::ALL {
        let fusion = Fusion { rule, threshold: 0.1 };
        assert_eq!(fuse(&fusion, &[]), Err(FuseError::NoParticipants));
        let lengths = fuse(&fusion, &[(1.0, short.row()), (1.0, long.row())]);
        assert_eq!(lengths, Err(FuseError::Lengths { first: 1, other: 2 }));
        let without_weight = fuse(&fusion, &[(0.0, silent.row()), (0.0, silent.row())]);
        assert_eq!(without_weight.is_err(), rule.uses_weights());
    }
    assert_eq!(fuse_targets(&[]), Err(FuseError::NoParticipants));
    assert_eq!(fuse_targets(&[(0.0, &[-1.0])]), Err(FuseError::NoWeight));
    assert_eq!(fuse_targets(&[(1.0, &[-1.0]), (1.0, &[])]), Err(FuseError::Lengths { first: 1, other: 0 }));
}
