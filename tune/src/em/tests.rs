//! Expectation-maximisation against known optima, and what it promises at every step.

use nalgebra::DMatrix;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::learned::unobserved;
use crate::log_probs::LogProbs;
use crate::simplex::equal_shares;
use crate::synthetic::Conditionals;

fn learn_from(log_probs: &LogProbs) -> Learned {
    let start = equal_shares(log_probs.members().len());
    learn(&Mixture::new(log_probs), &EmOptions::default(), start, &mut unobserved)
}

fn named(count: usize) -> Vec<String> {
    (0..count).map(|member| format!("m{member}")).collect()
}

/// Three members whose mixtures with tenths as weights are whole hundredths, in two contexts.
fn tenths() -> Conditionals {
    let context = |rows: [[f64; 4]; 3]| rows.map(Vec::from).to_vec();
    Conditionals::new(vec![
        context([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.2, 0.2, 0.1, 0.5]]),
        context([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]]),
    ])
}

#[test]
fn expected_counts_have_the_true_weights_for_an_optimum() {
    for truth in [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.4, 0.0], [0.0, 1.0, 0.0]] {
        let tokens = tenths().expect(&truth, 100);
        assert_eq!(tokens.len(), 200);
        let learned = learn_from(&tenths().log_probs(&tokens).unwrap());
        for (weight, truth) in learned.weights.iter().zip(truth) {
            assert!((weight - truth).abs() < 1e-6, "{:?} for {truth}", learned.weights);
        }
        // By Gibbs' inequality the best mean log-probability is the negative entropy of the mixture itself.
        let mixtures = (0..2).flat_map(|context| tenths().mixture(context, &truth));
        let entropy: f64 = mixtures.map(|p| -0.5 * p * p.ln()).sum();
        assert!((learned.mean_log_prob + entropy).abs() < 1e-12);
        assert!((learned.perplexity - entropy.exp()).abs() < 1e-10);
        assert_eq!(learned.ended, Ended::Converged);
    }
}

#[test]
fn drawn_tokens_recover_the_true_weights_within_the_sampling_error() {
    let (truth, tokens) = ([0.4, 0.35, 0.2, 0.05], 30_000);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let source = Conditionals::random([300, 4, 40], 1.5, 0.3, &mut random);
    let log_probs = source.log_probs(&source.draw(&truth, tokens, &mut random)).unwrap();
    let learned = learn_from(&log_probs);
    // The inverse of Fisher's information on the plane of weights that sum to one, divided by the number of tokens.
    let information = Mixture::new(&log_probs).curvature(&learned.weights);
    let inverse = information.try_inverse().unwrap();
    let sums = inverse.column_sum();
    let covariance: DMatrix<f64> = &inverse - &sums * sums.transpose() / sums.sum();
    for (member, (weight, truth)) in learned.weights.iter().zip(truth).enumerate() {
        let error = (covariance[(member, member)] / tokens as f64).sqrt();
        assert!(error < 0.02, "a test that could fail: {error}");
        assert!((weight - truth).abs() < 4.0 * error, "{:?}, {error}", learned.weights);
    }
}

fn matrices() -> impl Strategy<Value = LogProbs> {
    let number = prop_oneof![9 => -9.0..0.0_f64, 1 => Just(f64::NEG_INFINITY), 1 => -900.0..-700.0_f64];
    (2_usize..6).prop_flat_map(move |members| {
        prop::collection::vec(prop::collection::vec(number.clone(), members), 2..60)
            .prop_filter_map("every token is possible", move |rows| {
                LogProbs::without_impossible_tokens(named(members), rows).ok().map(|kept| kept.0)
            })
    })
}

proptest! {
    #[test]
    fn every_step_is_uphill_and_every_gap_is_a_bound(log_probs in matrices()) {
        let mut points = Vec::new();
        let mut observer = |progress: &Progress| {
            points.push((progress.best, progress.duality_gap.unwrap()));
            ControlFlow::Continue(())
        };
        let mixture = Mixture::new(&log_probs);
        let members = log_probs.members().len();
        let learned = learn(&mixture, &EmOptions::default(), equal_shares(members), &mut observer);
        prop_assert_eq!(learned.ended, Ended::Converged, "{} passes, gap {}", learned.passes, learned.duality_gap);
        let rounding = 1e-13 * learned.mean_log_prob.abs().max(1.0);
        for pair in learned.history.windows(2) {
            prop_assert!(pair[1] >= pair[0] - rounding, "downhill by {}", pair[0] - pair[1]);
        }
        for (value, gap) in points {
            prop_assert!(learned.mean_log_prob - value <= gap + rounding);
        }
        // Nothing on the simplex is better: the corners, and points around.
        for member in 0..members {
            for share in [1.0, 0.1, 1e-3] {
                let mut other: Vec<f64> = learned.weights.iter().map(|weight| (1.0 - share) * weight).collect();
                other[member] += share;
                prop_assert!(log_probs.mean_log_prob(&other).unwrap() <= learned.mean_log_prob + 1e-9);
            }
        }
        prop_assert!((learned.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let again = log_probs.mean_log_prob(&learned.weights).unwrap();
        prop_assert!((again - learned.mean_log_prob).abs() < 1e-9 * again.abs().max(1.0));
    }
}

/// Many members that bring nothing are what plain steps and extrapolations take thousands of passes for.
#[test]
fn several_weights_that_go_to_zero_take_few_passes() {
    let mut random = ChaCha8Rng::seed_from_u64(15);
    let source = Conditionals::random([200, 8, 50], 2.0, 0.8, &mut random);
    let truth = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let learned = learn_from(&source.log_probs(&source.draw(&truth, 20_000, &mut random)).unwrap());
    assert_eq!(learned.ended, Ended::Converged);
    assert!(learned.passes < 100, "{} passes", learned.passes);
    assert!(learned.weights[2..].iter().sum::<f64>() < 0.05);
}

#[test]
fn threads_change_no_bit() {
    let mut random = ChaCha8Rng::seed_from_u64(16);
    let source = Conditionals::random([50, 5, 20], 1.0, 0.5, &mut random);
    let log_probs = source.log_probs(&source.draw(&[0.2; 5], 9000, &mut random)).unwrap();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| learn_from(&log_probs))
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn copies_share_what_one_would_have() {
    let rows = [[-1.0, -1.0, -2.0], [-3.0, -3.0, -0.5], [-0.1, -0.1, -1.0], [-2.0, -2.0, -2.0]];
    let all = learn_from(&LogProbs::new(named(3), rows).unwrap());
    let two = learn_from(&LogProbs::new(named(2), rows.map(|row| [row[0], row[2]])).unwrap());
    assert!((all.weights[0] - all.weights[1]).abs() < 1e-9);
    assert!((all.weights[2] - two.weights[1]).abs() < 1e-5);
    assert!((all.mean_log_prob - two.mean_log_prob).abs() < 1e-11);
}

#[test]
fn one_member_has_all_the_weight_after_one_pass() {
    let learned = learn_from(&LogProbs::new(named(1), [[-1.0], [-3.0]]).unwrap());
    assert_eq!((learned.weights, learned.passes, learned.mean_log_prob), (vec![1.0], 1, -2.0));
}

#[test]
fn it_ends_when_it_is_told_to() {
    let log_probs = tenths().log_probs(&tenths().expect(&[0.1, 0.1, 0.8], 100)).unwrap();
    let mixture = Mixture::new(&log_probs);
    let options = EmOptions { passes: 3, ..EmOptions::default() };
    let learned = learn(&mixture, &options, equal_shares(3), &mut unobserved);
    assert_eq!(learned.ended, Ended::Budget);
    assert!(learned.duality_gap > options.tolerance && learned.passes <= 4);
    let mut calls = 0;
    let mut observer = |progress: &Progress| {
        calls += 1;
        assert_eq!((progress.part, progress.parts, progress.limit), (0, 1, 2000));
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let learned = learn(&mixture, &EmOptions::default(), equal_shares(3), &mut observer);
    assert_eq!((learned.ended, learned.history.len()), (Ended::Stopped, 2));
    assert!(learned.history[1] > learned.history[0] && learned.mean_log_prob == learned.history[1]);
}

#[test]
fn options_have_a_range() {
    for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = EmOptions { tolerance, ..EmOptions::default() }.check().unwrap_err().to_string();
        assert_eq!(error, format!("the tolerance is {tolerance}; allowed: a finite number above 0"));
    }
    let error = EmOptions { passes: 0, ..EmOptions::default() }.check().unwrap_err().to_string();
    assert_eq!(error, "the number of passes is 0; allowed: at least 1");
}
