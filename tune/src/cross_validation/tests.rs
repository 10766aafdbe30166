//! Cross-validation by hand, around every method, and what it refuses.

use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::bayes::BayesOptions;
use crate::em::EmOptions;
use crate::gradient::GradientOptions;
use crate::learned::unobserved;
use crate::synthetic::Conditionals;

const ZERO: f64 = f64::NEG_INFINITY;

fn matrix(rows: &[[f64; 2]]) -> LogProbs {
    LogProbs::new(vec!["alto".into(), "bass".into()], rows).unwrap()
}

#[test]
fn two_folds_are_as_by_hand() {
    // The first half is alto's, the second one bass's: each half teaches the wrong thing about the other.
    let log_probs = matrix(&[[-0.1, -2.0], [-0.1, -2.0], [-3.0, -0.2], [-3.0, -0.2]]);
    let validated = cross_validate(&log_probs, &Method::default(), 2, &mut unobserved).unwrap();
    let [first, second] = &validated.folds[..] else { panic!("{validated:?}") };
    assert_eq!((first.held_out.clone(), second.held_out.clone()), (0..2, 2..4));
    assert!((first.learned.weights[1] - 1.0).abs() < 1e-9 && (second.learned.weights[0] - 1.0).abs() < 1e-9);
    assert!((first.learned.perplexity - 0.2_f64.exp()).abs() < 1e-6);
    assert!((first.perplexity - 2.0_f64.exp()).abs() < 1e-6);
    assert!((second.perplexity - 3.0_f64.exp()).abs() < 1e-6);
    assert!((validated.perplexity - 2.5_f64.exp()).abs() < 1e-6);
    let equal = |one: f64, other: f64| (0.5 * one.exp() + 0.5 * other.exp()).ln();
    assert!((first.equal_perplexity - (-equal(-0.1, -2.0)).exp()).abs() < 1e-12);
    let mean = 0.5 * (equal(-0.1, -2.0) + equal(-3.0, -0.2));
    assert!((validated.equal_perplexity - (-mean).exp()).abs() < 1e-12);
    // Weights 0 and 1: mean one half, deviation sqrt(2 * 0.25 / 1).
    for weight in &validated.weights {
        assert!((weight.mean - 0.5).abs() < 1e-9 && (weight.deviation - 0.5_f64.sqrt()).abs() < 1e-9);
    }
    assert!((validated.mean_weights().iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn parts_follow_on_each_other_and_differ_by_a_token_at_most() {
    for (tokens, folds) in [(10, 3), (11, 4), (5, 5), (100, 7)] {
        let ends: Vec<usize> = (0..=folds).map(|part| boundary(part, folds, tokens)).collect();
        assert_eq!((ends[0], ends[folds]), (0, tokens));
        let lengths = ends.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
    }
}

#[test]
fn every_method_sees_the_same_truth() {
    let truth = [0.6, 0.3, 0.1];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let source = Conditionals::random([100, 3, 30], 2.0, 0.2, &mut random);
    let log_probs = source.log_probs(&source.draw(&truth, 6000, &mut random)).unwrap();
    let methods = [
        Method::Em(EmOptions::default()),
        Method::Gradient(GradientOptions::default()),
        Method::Bayes(BayesOptions { evaluations: 30, seed: 1 }),
    ];
    for method in methods {
        let mut parts = Vec::new();
        let mut observer = |progress: &Progress| {
            assert_eq!(progress.parts, 4);
            parts.push(progress.part);
            ControlFlow::Continue(())
        };
        let validated = cross_validate(&log_probs, &method, 4, &mut observer).unwrap();
        parts.dedup();
        assert_eq!(parts, [0, 1, 2, 3], "{method}");
        for (spread, truth) in validated.weights.iter().zip(truth) {
            assert!((spread.mean - truth).abs() < 0.05, "{method}: {:?}", validated.weights);
            assert!(spread.deviation > 1e-6 && spread.deviation < 0.05, "{method}: {:?}", validated.weights);
        }
        // Held out, learned weights are better than equal ones, and a little worse than where they were learned.
        assert!(validated.perplexity < validated.equal_perplexity);
        let training: f64 = validated.folds.iter().map(|fold| fold.learned.mean_log_prob).sum();
        assert!(validated.perplexity > (-training / 4.0).exp());
    }
}

#[test]
fn a_held_out_token_may_be_impossible() {
    let log_probs = matrix(&[[-0.1, ZERO], [-0.1, -3.0], [-0.1, -3.0], [ZERO, -0.5]]);
    let validated = cross_validate(&log_probs, &Method::default(), 4, &mut unobserved).unwrap();
    assert_eq!((validated.folds[3].perplexity, validated.perplexity), (f64::INFINITY, f64::INFINITY));
    assert!(validated.folds[1].perplexity.is_finite() && validated.equal_perplexity.is_finite());
}

#[test]
fn too_few_folds_or_tokens_are_refused() {
    let log_probs = matrix(&[[-0.1, -2.0]; 3]);
    let refused = |folds| {
        cross_validate(&log_probs, &Method::default(), folds, &mut unobserved).unwrap_err().to_string()
    };
    assert_eq!(refused(0), "cross-validation in 0 folds; allowed: at least 2");
    assert_eq!(refused(1), "cross-validation in 1 folds; allowed: at least 2");
    assert_eq!(
        refused(4),
        "3 tokens can't be shared out among 4 folds; allowed: at most as many folds as tokens"
    );
    let wrong = Method::Em(EmOptions { passes: 0, ..EmOptions::default() });
    let error = cross_validate(&log_probs, &wrong, 2, &mut unobserved).unwrap_err().to_string();
    assert_eq!(error, "the number of passes is 0; allowed: at least 1");
}

#[test]
fn an_observer_ends_all_of_it() {
    let log_probs = matrix(&[[-0.1, -2.0], [-0.4, -0.1], [-2.0, -0.1], [-0.1, -0.5]]);
    let mut observer = |progress: &Progress| {
        if progress.part == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = cross_validate(&log_probs, &Method::default(), 2, &mut observer).unwrap_err();
    assert_eq!(error.to_string(), "stopped before there was a result");
}
