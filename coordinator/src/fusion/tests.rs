//! What every rule must hold for any rows and weights, and the rules against their formulas written down naively.

use chorus_simd::norm;
use proptest::prelude::*;

use super::{Candidate, FuseError, Fused, Fusion, Norm, Row, RowError, Rule, Scratch, fuse, fuse_targets};

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

    /// The member's own log-probabilities; rounding makes none positive.
    fn log_probs(&self) -> Vec<f64> {
        (0..self.logits.len() as u32).map(|id| self.row().log_prob(id).unwrap()).collect()
    }

    /// softmax in f64.
    fn probabilities(&self) -> Vec<f64> {
        let exps: Vec<f64> = self.logits.iter().map(|z| f64::from(*z).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|exp| exp / sum).collect()
    }
}

/// Fuses with a scratch that has seen other things.
fn fused<T>(rule: Rule, threshold: f64, members: &[Member], make: impl FnOnce(Fused<'_>) -> T) -> T {
    let rows: Vec<(f64, Row<'_>)> = members.iter().map(|member| (member.weight, member.row())).collect();
    Scratch::lent(|scratch| make(fuse(&Fusion { rule, threshold }, &rows, scratch).unwrap()))
}

/// The log-probabilities of the fused distribution; of a vote those of the mixture.
fn log_probs(rule: Rule, members: &[Member]) -> Vec<f64> {
    fused(rule, 0.1, members, |fused| match fused {
        Fused::Distribution(distribution) => distribution.log_probs().collect(),
        Fused::Winner(winner) => winner.mixture.log_probs().collect(),
    })
}

/// A winner in numbers of its own.
#[derive(Debug, PartialEq)]
struct Vote {
    id: u32,
    votes: u32,
    by_weighted_average: bool,
    votes_by_id: Vec<u32>,
    top: Vec<u32>,
    mixture: Vec<f64>,
    argmax: u32,
}

fn vote(threshold: f64, members: &[Member]) -> Vote {
    fused(Rule::ThresholdVote, threshold, members, |fused| match fused {
        Fused::Winner(winner) => Vote {
            id: winner.id,
            votes: winner.votes,
            by_weighted_average: winner.by_weighted_average,
            votes_by_id: (0..=winner.mixture.len() as u32).map(|id| winner.votes_for(id)).collect(),
            top: winner.top(winner.mixture.len()).iter().map(|candidate| candidate.id).collect(),
            mixture: winner.mixture.log_probs().collect(),
            argmax: winner.mixture.argmax(),
        },
        Fused::Distribution(_) => panic!("a vote has no distribution"),
    })
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

fn assert_close(ours: &[f64], expected: &[f64], tolerance: f64) {
    for (id, (ours, expected)) in ours.iter().zip(expected).enumerate() {
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
            let log_probs = log_probs(rule, &members);
            let sum: f64 = log_probs.iter().map(|l| l.exp()).sum();
            prop_assert!((sum - 1.0).abs() < F32, "{rule}: {sum}");
            prop_assert!(log_probs.iter().all(|l| l.is_finite() && *l <= 0.0));
        }
    }

    #[test]
    fn the_rules_are_their_formulas(members in members()) {
        for rule in Rule::ALL {
            let expected: Vec<f64> = naive(rule, &members).iter().map(|p| p.ln()).collect();
            assert_close(&log_probs(rule, &members), &expected, F32);
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
            assert_close(&log_probs(rule, &unordered), &log_probs(rule, &members), 1e-12);
        }
    }

    #[test]
    fn one_member_is_that_member_to_the_bit(members in members()) {
        let mut member = members[0].clone();
        member.weight = 0.3;
        let own = member.log_probs();
        for rule in Rule::ALL {
            prop_assert_eq!(&log_probs(rule, std::slice::from_ref(&member)), &own);
        }
        let mut others_count_nothing = members.clone();
        others_count_nothing.iter_mut().for_each(|other| other.weight = 0.0);
        others_count_nothing[0].weight = 0.3;
        for rule in Rule::ALL.into_iter().filter(|rule| rule.uses_weights()) {
            prop_assert_eq!(&log_probs(rule, &others_count_nothing), &own);
        }
    }

    #[test]
    fn identical_members_are_one_member(members in members(), copies in 2..5_usize) {
        let member = Member { weight: 0.7, logits: members[0].logits.clone() };
        for rule in Rule::ALL {
            assert_close(&log_probs(rule, &vec![member.clone(); copies]), &member.log_probs(), F32);
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
            assert_close(&log_probs(rule, &survivors), &log_probs(rule, &renormalised), 1e-12);
        }
    }

    #[test]
    fn logit_mean_is_log_linear_with_equal_weights(members in members()) {
        let mut equal = members;
        equal.iter_mut().for_each(|member| member.weight = 0.3);
        prop_assert_eq!(log_probs(Rule::LogitMean, &equal), log_probs(Rule::LogLinear, &equal));
    }

    #[test]
    fn a_constant_added_to_a_member_s_logits_changes_nothing(
        members in members(), shifts in prop::collection::vec(-20..20_i8, 6),
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
            assert_close(&log_probs(rule, &shifted(&by)), &log_probs(rule, &members), 2.0 * F32);
        }
    }

    #[test]
    fn scoring_by_targets_is_scoring_by_rows_to_the_bit(members in hostile()) {
        let dense = log_probs(Rule::WeightedAverage, &members);
        let own: Vec<Vec<f64>> = members.iter().map(Member::log_probs).collect();
        let targets: Vec<(f64, &[f64])> =
            members.iter().zip(&own).map(|(member, own)| (member.weight, own.as_slice())).collect();
        prop_assert_eq!(fuse_targets(&targets).unwrap(), dense);
    }

    #[test]
    fn the_weighted_average_is_the_logarithm_of_its_column_to_the_bit(members in hostile()) {
        let total: f64 = shares(&members).iter().sum();
        prop_assert!((total - 1.0).abs() < 1e-12);
        let sharing: Vec<(f64, Vec<f64>)> = shares(&members).into_iter()
            .zip(members.iter().map(Member::log_probs)).filter(|(share, _)| *share > 0.0).collect();
        for (id, found) in log_probs(Rule::WeightedAverage, &members).into_iter().enumerate() {
            let sum: f64 = sharing.iter().fold(0.0, |sum, (share, own)| sum + share * own[id].exp());
            match sharing.as_slice() {
                [(_, only)] => prop_assert_eq!(found.to_bits(), only[id].to_bits()),
                _ if sum > 1e-290 => prop_assert_eq!(found.to_bits(), sum.ln().min(0.0).to_bits()),
                _ => {
                    let likeliest = sharing.iter().map(|(share, own)| share.ln() + own[id]).fold(f64::MIN, f64::max);
                    let sum: f64 = sharing.iter().map(|(share, own)| (share.ln() + own[id] - likeliest).exp()).sum();
                    prop_assert!((found - likeliest - sum.ln()).abs() <= 1e-12 * found.abs());
                }
            }
        }
    }

    #[test]
    fn the_likeliest_are_those_of_all_log_probabilities_sorted(members in hostile(), n in 0..50_usize) {
        for rule in Rule::ALL.into_iter().filter(|rule| rule.yields_distribution()) {
            let log_probs = log_probs(rule, &members);
            let mut sorted: Vec<u32> = (0..log_probs.len() as u32).collect();
            let key = |id: u32| log_probs[id as usize];
            // A stable sort keeps the lower id in front.
            sorted.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
            fused(rule, 0.1, &members, |fused| {
                let Fused::Distribution(distribution) = fused else { panic!("a distribution") };
                assert_eq!(distribution.argmax(), sorted[0], "{rule}");
                let expected = sorted.iter().take(n).map(|id| Candidate { id: *id, log_prob: key(*id) });
                assert_eq!(distribution.top(n), expected.collect::<Vec<_>>(), "{rule}");
            });
        }
    }

    #[test]
    fn the_vote_is_its_formula(
        members in hostile(), threshold in prop_oneof![0.0..1.0_f64, Just(0.0), Just(1e-30), Just(1.0 - 1e-9)],
    ) {
        let vote = vote(threshold, &members);
        let own: Vec<Vec<f64>> = members.iter().map(Member::log_probs).collect();
        let votes: Vec<u32> = (0..members[0].logits.len())
            .map(|id| own.iter().filter(|own| own[id] > threshold.ln()).count() as u32).collect();
        let mut order: Vec<u32> = (0..votes.len() as u32).collect();
        let key = |id: &u32| (votes[*id as usize], vote.mixture[*id as usize]);
        // A stable sort keeps the lower id in front.
        order.sort_by(|a, b| key(b).0.cmp(&key(a).0).then(key(b).1.total_cmp(&key(a).1)));
        prop_assert_eq!(vote.id, order[0]);
        prop_assert_eq!(vote.votes, key(&order[0]).0);
        prop_assert_eq!(vote.by_weighted_average, votes.iter().all(|votes| *votes == 0));
        prop_assert_eq!(&vote.top, &order);
        prop_assert_eq!(&vote.votes_by_id[..votes.len()], &votes[..]);
        if vote.by_weighted_average {
            prop_assert_eq!(vote.id, vote.argmax);
        }
    }
}

/// The members' shares of all weights.
fn shares(members: &[Member]) -> Vec<f64> {
    super::shares(Rule::WeightedAverage, &members.iter().map(|member| member.weight).collect::<Vec<_>>())
        .unwrap()
}

/// Rows that f32 does not decide: ties, neighbours, probabilities that underflow, logits of any size, and enough tokens for
/// whole vectors.
fn hostile() -> impl Strategy<Value = Vec<Member>> {
    let value = prop_oneof![
        8 => (-6_i8..6).prop_map(f32::from),
        4 => (0_u32..4).prop_map(|ulps| f32::from_bits(2.0_f32.to_bits() + ulps)),
        4 => -9.0_f32..9.0,
        1 => Just(-90.0_f32),
        1 => -2100.0_f32..-60.0,
        1 => prop::sample::select(vec![1e30_f32, -1e30, f32::MAX, f32::MIN, 1e-30]),
    ];
    // Most members have nothing that is huge, beside which all else vanishes.
    let tame = prop_oneof![(-6_i8..6).prop_map(f32::from), (-200.0_f32..2.0).prop_map(f32::round)];
    let weight = prop_oneof![4 => 0.01..10.0_f64, 2 => Just(1.0), 1 => Just(0.0), 1 => Just(1e-200)];
    (1..150_usize, 1..7_usize).prop_flat_map(move |(vocabulary_size, members)| {
        let logits = prop::collection::vec(value.clone(), vocabulary_size);
        let tame = prop::collection::vec(tame.clone(), vocabulary_size);
        let member = (weight.clone(), prop_oneof![logits, tame]);
        prop::collection::vec(member, members).prop_map(|members| {
            let member = |(weight, logits)| Member { weight, logits };
            let mut members: Vec<Member> = members.into_iter().map(member).collect();
            if members.iter().all(|member| member.weight == 0.0) {
                members[0].weight = 1.0;
            }
            members
        })
    })
}

fn member(weight: f64, logits: &[f32]) -> Member {
    Member { weight, logits: logits.to_vec() }
}

#[test]
fn a_vocabulary_of_one_token_is_certain_of_it() {
    let members = [member(1.0, &[3.5]), member(2.0, &[-7.0])];
    for rule in Rule::ALL {
        assert_eq!(log_probs(rule, &members), [0.0], "{rule}");
    }
    assert_eq!(vote(0.5, &members).votes, 2);
}

#[test]
fn a_probability_that_underflows_keeps_a_finite_logarithm() {
    let members = [member(1.0, &[0.0, -2000.0]), member(3.0, &[0.0, -2001.0])];
    let expected = (0.25 + 0.75 * (-1.0_f64).exp()).ln() - 2000.0;
    let log_probs = log_probs(Rule::WeightedAverage, &members);
    assert!((log_probs[1] - expected).abs() < 1e-9);
    let targets = fuse_targets(&[(1.0, &[-2000.0]), (3.0, &[-2001.0])]).unwrap();
    assert_eq!(targets, log_probs[1..]);
}

#[test]
fn weights_of_any_size_are_shared() {
    let logits: [&[f32]; 2] = [&[1.0, 0.0], &[0.0, 1.0]];
    for scale in [f64::MAX, 1e-300, f64::MIN_POSITIVE] {
        let members = logits.map(|logits| member(scale, logits));
        assert_close(&log_probs(Rule::WeightedAverage, &members), &[0.5_f64.ln(); 2], 1e-6);
    }
}

#[test]
fn at_threshold_0_everybody_votes_for_everything_and_the_mixture_decides() {
    let winner = vote(0.0, &[member(0.9, &[0.0, 800.0, -800.0]), member(0.1, &[9.0, 0.0, 0.0])]);
    assert_eq!((winner.id, winner.votes, winner.by_weighted_average), (1, 2, false));
    assert_eq!(winner.votes_by_id, [2, 2, 2, 0], "the last is outside the vocabulary");
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
    assert_eq!(winner.argmax, 1);
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
            let error = fuse(&Fusion { rule, threshold: 0.1 }, &rows, &mut Scratch::default()).unwrap_err();
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
        let error = |rows: &[(f64, Row<'_>)]| {
            fuse(&Fusion { rule, threshold: 0.1 }, rows, &mut Scratch::default()).err()
        };
        assert_eq!(error(&[]), Some(FuseError::NoParticipants));
        let lengths = error(&[(1.0, short.row()), (1.0, long.row())]);
        assert_eq!(lengths, Some(FuseError::Lengths { first: 1, other: 2 }));
        let without_weight = error(&[(0.0, silent.row()), (0.0, silent.row())]);
        assert_eq!(without_weight.is_some(), rule.uses_weights());
    }
    assert_eq!(fuse_targets(&[]), Err(FuseError::NoParticipants));
    assert_eq!(fuse_targets(&[(0.0, &[-1.0])]), Err(FuseError::NoWeight));
    assert_eq!(fuse_targets(&[(1.0, &[-1.0]), (1.0, &[])]), Err(FuseError::Lengths { first: 1, other: 0 }));
}
