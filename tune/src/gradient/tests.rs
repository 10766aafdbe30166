//! Gradient ascent against expectation-maximisation, a known optimum and differences.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::em::{self, EmOptions};
use crate::learned::unobserved;
use crate::log_probs::LogProbs;
use crate::mixture::{DifferentiableMixture, Mixture};
use crate::synthetic::Conditionals;

fn objective(log_probs: &LogProbs) -> DifferentiableMixture {
    DifferentiableMixture::new(Mixture::new(log_probs)).unwrap()
}

fn learn_from(log_probs: &LogProbs) -> Learned {
    learn(&objective(log_probs), &GradientOptions::default(), &mut unobserved).unwrap()
}

fn drawn(seed: u64, truth: &[f64], agreement: f64) -> LogProbs {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let source = Conditionals::random([150, truth.len(), 40], 2.0, agreement, &mut random);
    source.log_probs(&source.draw(truth, 5000, &mut random)).unwrap()
}

#[test]
fn it_agrees_with_expectation_maximisation_inside_and_at_the_edge() {
    let truths: [&[f64]; 6] = [
        &[0.5, 0.3, 0.2],
        &[0.6, 0.4, 0.0],
        &[1.0, 0.0, 0.0],
        &[0.1, 0.2, 0.3, 0.4, 0.0],
        &[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05],
        &[0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ];
    let mut at_the_edge = 0;
    for (seed, truth) in truths.into_iter().enumerate() {
        for agreement in [0.0, 0.8, 0.95] {
            let log_probs = drawn(seed as u64, truth, agreement);
            let start = equal_shares(truth.len());
            let em = em::learn(&Mixture::new(&log_probs), &EmOptions::default(), start, &mut unobserved);
            let gradient = learn_from(&log_probs);
            for (one, other) in em.weights.iter().zip(&gradient.weights) {
                assert!(
                    (one - other).abs() < 1e-4,
                    "{em:?}\n{:?} {}",
                    gradient.weights,
                    gradient.duality_gap
                );
            }
            assert!(em.mean_log_prob - gradient.mean_log_prob <= gradient.duality_gap + 1e-13);
            assert!(gradient.duality_gap < 1e-6, "{}", gradient.duality_gap);
            at_the_edge += em.weights.iter().filter(|weight| **weight < 1e-6).count();
        }
    }
    assert!(at_the_edge > 10, "{at_the_edge}");
}

#[test]
fn expected_counts_have_the_true_weights_for_an_optimum() {
    let context = |rows: [[f64; 3]; 2]| rows.map(Vec::from).to_vec();
    let source = Conditionals::new(vec![
        context([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]),
        context([[0.2, 0.2, 0.6], [0.7, 0.2, 0.1]]),
    ]);
    for truth in [[0.7, 0.3], [0.1, 0.9], [1.0, 0.0]] {
        let learned = learn_from(&source.log_probs(&source.expect(&truth, 100)).unwrap());
        // At a corner the slope by the weights vanishes together with that by the numbers, so the last digits take longest.
        assert!((learned.weights[0] - truth[0]).abs() < 2e-5, "{:?}", learned.weights);
        assert_eq!(learned.ended, Ended::Converged);
    }
}

/// A weight that should grow and whose number has run away to minus infinity has no slope that would bring it back.
#[test]
fn a_weight_that_came_too_near_to_zero_is_raised() {
    let log_probs = drawn(3, &[0.5, 0.3, 0.2], 0.5);
    let objective = objective(&log_probs);
    let options = GradientOptions::default();
    let mut observer = unobserved;
    let mut walk = Walk::new(&objective, &options, &mut observer);
    let visit = walk.visit(&[0.0, 0.0, -600.0]).unwrap();
    assert!(visit.gradient[2].abs() < 1e-200);
    let start = walk.start_again(1e-3).unwrap();
    assert!(start[2] > 9e-4 && start[0] > 0.49, "{start:?}");
}

#[test]
fn the_gradient_is_that_of_differences() {
    let log_probs = drawn(4, &[0.5, 0.3, 0.2], 0.3);
    let objective = objective(&log_probs);
    let options = GradientOptions { tolerance: 1e-300, passes: 1000 };
    let mut observer = unobserved;
    let mut walk = Walk::new(&objective, &options, &mut observer);
    let logits = [0.3, -0.2, 0.9];
    let gradient = walk.visit(&logits).unwrap().gradient.clone();
    for member in 0..3 {
        let mut cost = |distance: f64| {
            let mut moved = logits;
            moved[member] += distance;
            walk.visit(&moved).unwrap().cost
        };
        let difference = (cost(1e-5) - cost(-1e-5)) / 2e-5;
        assert!((gradient[member] - difference).abs() < 1e-8, "{gradient:?} {difference}");
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    let log_probs = drawn(5, &[0.8, 0.1, 0.1], 0.5);
    let options = GradientOptions { passes: 3, ..GradientOptions::default() };
    let learned = learn(&objective(&log_probs), &options, &mut unobserved).unwrap();
    assert_eq!((learned.ended, learned.passes, learned.history.len()), (Ended::Budget, 3, 3));
    assert!(learned.history[2] > learned.history[0]);
    let mut observer = |progress: &Progress| {
        if progress.passes == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let learned = learn(&objective(&log_probs), &GradientOptions::default(), &mut observer).unwrap();
    assert_eq!((learned.ended, learned.passes), (Ended::Stopped, 2));
    assert!(GradientOptions { passes: 0, ..GradientOptions::default() }.check().is_err());
    assert!(GradientOptions { tolerance: f64::NAN, passes: 1 }.check().is_err());
}

#[test]
fn one_member_has_all_the_weight() {
    let learned = learn_from(&LogProbs::new(vec!["alto".into()], [[-1.0], [-3.0]]).unwrap());
    assert_eq!((learned.weights, learned.passes), (vec![1.0], 1));
}
