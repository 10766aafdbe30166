//! Which sets there are, and that each has the weights that it would have learned alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::synthetic::Conditionals;

const ZERO: f64 = f64::NEG_INFINITY;

fn drawn(members: usize, tokens: usize) -> LogProbs {
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let source = Conditionals::random([80, members, 30], 2.0, 0.5, &mut random);
    let mut truth: Vec<f64> = (0..members).map(|member| member as f64).collect();
    normalize(&mut truth);
    source.log_probs(&source.draw(&truth, tokens, &mut random)).unwrap()
}

#[test]
fn every_set_survives_up_to_eight_members_and_losses_of_two_beyond() {
    assert_eq!(
        surviving_sets(3),
        [vec![0, 1, 2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0], vec![1], vec![2]]
    );
    assert_eq!(surviving_sets(1), [[0]]);
    for members in 1..=8 {
        let mut sets = surviving_sets(members);
        assert_eq!(sets.len(), (1 << members) - 1);
        sets.sort();
        sets.dedup();
        assert_eq!(sets.len(), (1 << members) - 1);
    }
    for members in [9, 12, 30] {
        let sets = surviving_sets(members);
        assert_eq!(sets.len(), 1 + members + members * (members - 1) / 2);
        assert!(sets.iter().all(|set| set.len() >= members - 2));
    }
}

#[test]
fn a_set_has_the_weights_that_its_members_would_learn_alone() {
    let log_probs = drawn(4, 3000);
    let sets = learn_sets(&log_probs, &EmOptions::default(), &mut unobserved).unwrap();
    assert_eq!(sets.sets.len(), 15);
    for set in &sets.sets {
        let own = log_probs.select_members(&set.members).unwrap();
        let start = equal_shares(set.members.len());
        let alone = em::learn(&Mixture::new(&own), &EmOptions::default(), start, &mut unobserved);
        for (weight, alone) in set.weights.iter().zip(&alone.weights) {
            assert!((weight - alone).abs() < 1e-5, "{set:?} {alone:?}");
        }
        assert!((set.mean_log_prob - alone.mean_log_prob).abs() < 1e-10);
        assert!((set.perplexity - own.perplexity(&set.weights).unwrap()).abs() < 1e-9);
        assert!(set.duality_gap <= EmOptions::default().tolerance);
        // Whoever is lost, it costs.
        for lost in &set.members {
            let left: Vec<usize> = set.members.iter().copied().filter(|member| member != lost).collect();
            assert!(sets.of(&left).is_none_or(|left| left.perplexity >= set.perplexity - 1e-9));
        }
    }
}

#[test]
fn sets_are_found_by_who_is_there_and_by_who_is_not() {
    let sets = learn_sets(&drawn(3, 200), &EmOptions::default(), &mut unobserved).unwrap();
    assert_eq!(sets.of(&[2, 0]).unwrap().members, [0, 2]);
    assert_eq!(sets.without(&[1]), sets.of(&[0, 2]));
    assert_eq!(sets.without(&[]).unwrap().members, [0, 1, 2]);
    assert_eq!((sets.of(&[]), sets.of(&[3]), sets.without(&[0, 1, 2])), (None, None, None));
    assert_eq!(sets.members, ["m0", "m1", "m2"]);
}

#[test]
fn nine_members_have_weights_for_losses_of_two() {
    let sets = learn_sets(&drawn(9, 500), &EmOptions::default(), &mut unobserved).unwrap();
    assert_eq!(sets.sets.len(), 46);
    assert!(sets.without(&[3, 8]).is_some() && sets.without(&[3, 7, 8]).is_none());
}

#[test]
fn threads_change_no_bit() {
    let log_probs = drawn(5, 2500);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| learn_sets(&log_probs, &EmOptions::default(), &mut unobserved).unwrap())
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn tokens_that_a_set_can_t_say_make_its_perplexity_infinite_and_not_its_weights_wrong() {
    let names = ["alto", "bass", "tenor"].map(str::to_owned).to_vec();
    let rows = [[-1.0, ZERO, ZERO], [-2.0, -1.0, ZERO], [-1.0, -3.0, ZERO], [-2.0, -0.5, ZERO]];
    let log_probs = LogProbs::new(names, rows).unwrap();
    let sets = learn_sets(&log_probs, &EmOptions::default(), &mut unobserved).unwrap();
    let impossible: Vec<usize> = sets.sets.iter().map(|set| set.impossible_tokens).collect();
    assert_eq!(impossible, [0, 0, 0, 1, 0, 1, 4]);
    let without_alto = sets.of(&[1, 2]).unwrap();
    assert_eq!((without_alto.perplexity, without_alto.mean_log_prob), (f64::INFINITY, ZERO));
    assert!((without_alto.weights[0] - 1.0).abs() < 1e-6);
    assert_eq!(sets.of(&[2]).unwrap().weights, [1.0]);
}

#[test]
fn the_observer_counts_sets_and_ends_them() {
    let log_probs = drawn(5, 200);
    let mut counts = Vec::new();
    let mut observer = |progress: &Progress| {
        counts.push((progress.part, progress.parts));
        ControlFlow::Continue(())
    };
    learn_sets(&log_probs, &EmOptions::default(), &mut observer).unwrap();
    assert_eq!((counts.first(), counts.last()), (Some(&(1, 31)), Some(&(31, 31))));
    assert!(counts.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let stopped = learn_sets(&log_probs, &EmOptions::default(), &mut |_: &Progress| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(LearnError::Stopped)));
    let wrong = EmOptions { tolerance: 0.0, ..EmOptions::default() };
    assert!(matches!(learn_sets(&log_probs, &wrong, &mut unobserved), Err(LearnError::Option { .. })));
}
