//! Bayesian optimisation against expectation-maximisation.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::em::{self, EmOptions};
use crate::learned::unobserved;
use crate::log_probs::LogProbs;
use crate::mixture::{DifferentiableMixture, Mixture};
use crate::synthetic::Conditionals;

fn learn_from(log_probs: &LogProbs, options: &BayesOptions) -> Learned {
    learn(&DifferentiableMixture::new(Mixture::new(log_probs)).unwrap(), options, &mut unobserved).unwrap()
}

fn drawn(seed: u64, truth: &[f64], agreement: f64) -> LogProbs {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let source = Conditionals::random([100, truth.len(), 40], 2.0, agreement, &mut random);
    source.log_probs(&source.draw(truth, 2000, &mut random)).unwrap()
}

#[test]
fn it_comes_within_a_thousandth_of_the_best_perplexity() {
    let truths: [&[f64]; 7] = [
        &[0.5, 0.3, 0.2],
        &[0.6, 0.4, 0.0],
        &[1.0, 0.0, 0.0],
        &[0.1, 0.2, 0.3, 0.4, 0.0],
        &[0.9, 0.1, 0.0, 0.0, 0.0],
        &[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05],
        &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5],
    ];
    for (seed, truth) in truths.into_iter().enumerate() {
        for agreement in [0.0, 0.8] {
            let log_probs = drawn(seed as u64, truth, agreement);
            let start = equal_shares(truth.len());
            let best = em::learn(&Mixture::new(&log_probs), &EmOptions::default(), start, &mut unobserved);
            let learned =
                learn_from(&log_probs, &BayesOptions { seed: seed as u64, ..BayesOptions::default() });
            let ratio = learned.perplexity / best.perplexity;
            assert!(ratio < 1.001, "{ratio}: {:?} and {:?}", learned.weights, best.weights);
            assert!(best.mean_log_prob - learned.mean_log_prob <= learned.duality_gap + 1e-12);
            assert!((learned.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}

/// What the first, blind looks find is not what is asked of the whole.
#[test]
fn the_process_finds_more_than_chance_does() {
    let log_probs = drawn(9, &[0.8, 0.1, 0.0, 0.1, 0.0], 0.0);
    let blind = learn_from(&log_probs, &BayesOptions { evaluations: 11, seed: 1 });
    let learned = learn_from(&log_probs, &BayesOptions { evaluations: 40, seed: 1 });
    assert!(blind.duality_gap > 1e-2 && learned.duality_gap < 0.1 * blind.duality_gap);
    assert!(learned.history.windows(2).all(|pair| pair[1] >= pair[0]));
    assert_eq!(learned.history[10], *blind.history.last().unwrap());
}

#[test]
fn a_seed_has_one_result_on_any_number_of_threads() {
    let log_probs = drawn(10, &[0.5, 0.5, 0.0], 0.5);
    let on = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| learn_from(&log_probs, &BayesOptions { evaluations: 20, seed }))
    };
    assert_eq!(on(1, 7), on(3, 7));
    assert_ne!(on(1, 7).weights, on(1, 8).weights);
}

#[test]
fn weights_that_make_a_token_impossible_are_lived_with() {
    // Each member is the only one that can say something.
    let zero = f64::NEG_INFINITY;
    let rows = [[-1.0, zero, zero], [zero, -1.0, zero], [-2.0, -3.0, zero], [-0.5, zero, -0.1]];
    let names = ["alto", "bass", "tenor"].map(str::to_owned).to_vec();
    let log_probs = LogProbs::new(names, rows).unwrap();
    let best = em::learn(&Mixture::new(&log_probs), &EmOptions::default(), equal_shares(3), &mut unobserved);
    let learned = learn_from(&log_probs, &BayesOptions::default());
    assert!(learned.perplexity / best.perplexity < 1.001, "{learned:?}");
}

#[test]
fn members_that_are_all_alike_are_lived_with() {
    let log_probs = LogProbs::new(vec!["alto".into(), "bass".into()], [[-1.0, -1.0]; 3]).unwrap();
    let learned = learn_from(&log_probs, &BayesOptions { evaluations: 12, seed: 0 });
    assert!((learned.mean_log_prob + 1.0).abs() < 1e-12 && learned.duality_gap < 1e-12);
}

#[test]
fn the_budget_and_the_observer_end_it() {
    let log_probs = drawn(12, &[0.5, 0.5, 0.0], 0.5);
    for evaluations in [1, 2, 9] {
        let learned = learn_from(&log_probs, &BayesOptions { evaluations, seed: 0 });
        // One more pass is for the duality gap.
        assert_eq!((learned.history.len(), learned.passes), (evaluations, evaluations + 1));
        assert_eq!(learned.ended, Ended::Budget);
    }
    let mut observer = |progress: &Progress| {
        if progress.passes == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let objective = DifferentiableMixture::new(Mixture::new(&log_probs)).unwrap();
    let learned = learn(&objective, &BayesOptions::default(), &mut observer).unwrap();
    assert_eq!((learned.ended, learned.history.len()), (Ended::Stopped, 5));
    for evaluations in [0, BayesOptions::MOST + 1] {
        let error = BayesOptions { evaluations, seed: 0 }.check().unwrap_err().to_string();
        assert_eq!(error, format!("the number of evaluations is {evaluations}; allowed: 1 to 500"));
    }
    let one = LogProbs::new(vec!["alto".into()], [[-1.0]]).unwrap();
    assert_eq!(learn_from(&one, &BayesOptions::default()).weights, [1.0]);
}
