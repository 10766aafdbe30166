//! Exponents against the naive formula, a known truth, and sources that fail.

use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::bayes::BayesOptions;
use crate::em::EmOptions;
use crate::gradient::GradientOptions;
use crate::learned::{Progress, unobserved};
use crate::synthetic::Conditionals;

/// Rows in memory, of which one may be broken.
struct Held {
    members: usize,
    vocab_size: usize,
    rows: Vec<f32>,
    targets: Vec<u32>,
    broken: Option<usize>,
}

impl DenseRows for Held {
    fn members(&self) -> usize {
        self.members
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn tokens(&self) -> usize {
        self.targets.len()
    }

    fn read(
        &self,
        tokens: Range<usize>,
        rows: &mut [f32],
        targets: &mut [u32],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.broken.is_some_and(|broken| tokens.contains(&broken)) {
            return Err("the disk is gone".into());
        }
        let numbers = self.members * self.vocab_size;
        rows.copy_from_slice(&self.rows[tokens.start * numbers..tokens.end * numbers]);
        targets.copy_from_slice(&self.targets[tokens]);
        Ok(())
    }
}

/// Whole rows of tokens in contexts: the logarithms of the members' distributions, shifted by anything.
fn held(source: &Conditionals, tokens: &[(usize, usize)]) -> Held {
    let members = source.rows(0).len();
    let vocab_size = source.rows(0)[0].len();
    let row = |(context, _): &(usize, usize)| source.rows(*context).concat();
    let rows = tokens.iter().flat_map(row).map(|probability| probability.ln() as f32).collect();
    let targets = tokens.iter().map(|(_, id)| *id as u32).collect();
    Held { members, vocab_size, rows, targets, broken: None }
}

/// Members whose geometric mixture with these exponents is a distribution in whole hundredths: all members but the last are free,
/// and the last one is what is left of the truth, P_M ∝ (P* / prod_j P_j^a_j)^(1 / a_M).
fn with_truth(exponents: &[f64], random: &mut ChaCha8Rng) -> (Conditionals, Vec<(usize, usize)>) {
    let truths: [[f64; 5]; 3] =
        [[0.4, 0.3, 0.2, 0.05, 0.05], [0.1, 0.1, 0.1, 0.1, 0.6], [0.25, 0.25, 0.2, 0.2, 0.1]];
    let free = Conditionals::random([truths.len(), exponents.len() - 1, 5], 0.7, 0.0, random);
    let last_exponent = exponents[exponents.len() - 1];
    let contexts = truths.iter().enumerate().map(|(context, truth)| {
        let mut rows = free.rows(context).to_vec();
        let left = |id: usize| {
            let said: f64 = rows.iter().zip(exponents).map(|(row, exponent)| exponent * row[id].ln()).sum();
            ((truth[id].ln() - said) / last_exponent).exp()
        };
        let mut last: Vec<f64> = (0..truth.len()).map(left).collect();
        crate::simplex::normalize(&mut last);
        rows.push(last);
        rows
    });
    let counts = |truth: &[f64; 5]| truth.map(|probability| (probability * 100.0).round() as usize);
    let of_context = |(context, truth)| {
        let ids = counts(truth).into_iter().enumerate();
        ids.flat_map(move |(id, count)| vec![(context, id); count])
    };
    let tokens = truths.iter().enumerate().flat_map(of_context).collect();
    (Conditionals::new(contexts.collect()), tokens)
}

/// ln of the geometric mixture at the target, as the formula says it.
fn naive(source: &Conditionals, tokens: &[(usize, usize)], exponents: &[f64]) -> f64 {
    let of_token = |(context, target): &(usize, usize)| {
        let rows = source.rows(*context);
        let product = |id: usize| -> f64 {
            rows.iter().zip(exponents).map(|(row, exponent)| row[id].powf(*exponent)).product()
        };
        (product(*target) / (0..rows[0].len()).map(product).sum::<f64>()).ln()
    };
    tokens.iter().map(of_token).sum::<f64>() / tokens.len() as f64
}

fn random_tokens(seed: u64) -> (Conditionals, Vec<(usize, usize)>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let source = Conditionals::random([40, 3, 12], 1.0, 0.3, &mut random);
    let tokens = source.draw(&[0.5, 0.3, 0.2], 700, &mut random);
    (source, tokens)
}

#[test]
fn the_value_is_the_naive_formula_and_the_gradient_its_difference() {
    let (source, tokens) = random_tokens(1);
    let rows = held(&source, &tokens);
    let objective = LogLinear::new(&rows, slice::from_ref(&(0..tokens.len()))).unwrap();
    for exponents in [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.9, 0.05, 0.05]] {
        let expected = naive(&source, &tokens, &exponents);
        let slope = objective.differentiate(&exponents).unwrap();
        assert!((slope.mean_log_prob - expected).abs() < 1e-6);
        assert!((objective.mean_log_prob(&exponents).unwrap() - slope.mean_log_prob).abs() < 1e-12);
        for member in 0..3 {
            let value = |distance: f64| {
                let mut moved = exponents;
                moved[member] += distance;
                naive(&source, &tokens, &moved)
            };
            let difference = (value(1e-5) - value(-1e-5)) / 2e-5;
            assert!(
                (slope.gradient[member] - difference).abs() < 1e-5,
                "{} {difference}",
                slope.gradient[member]
            );
        }
    }
    assert!(
        (mean_log_prob(&rows, &[2.0, 3.0, 5.0]).unwrap() - naive(&source, &tokens, &[0.2, 0.3, 0.5])).abs()
            < 1e-6
    );
}

#[test]
fn expected_counts_have_the_true_exponents_for_an_optimum() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for truth in [&[0.5, 0.5][..], &[0.2, 0.3, 0.5], &[0.1, 0.1, 0.1, 0.7]] {
        let (source, tokens) = with_truth(truth, &mut random);
        let rows = held(&source, &tokens);
        let gradient = learn(&rows, &Method::Gradient(GradientOptions::default()), &mut unobserved).unwrap();
        for (exponent, truth) in gradient.weights.iter().zip(truth) {
            assert!((exponent - truth).abs() < 1e-5, "{:?}", gradient.weights);
        }
        assert!((gradient.mean_log_prob - naive(&source, &tokens, truth)).abs() < 1e-6);
        let bayes = Method::Bayes(BayesOptions { evaluations: 40, seed: 3 });
        let bayes = learn(&rows, &bayes, &mut unobserved).unwrap();
        assert!(bayes.perplexity / gradient.perplexity < 1.001, "{:?}", bayes.weights);
        assert!(gradient.mean_log_prob - bayes.mean_log_prob <= bayes.duality_gap + 1e-12);
    }
}

#[test]
fn drawn_targets_have_the_true_exponents_but_for_chance() {
    let truth = [0.3, 0.7];
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let members = Conditionals::random([60, 2, 10], 1.0, 0.0, &mut random);
    // The geometric mixture as the only member of a source that is drawn from.
    let mixture = |context: usize| {
        let [one, other] = members.rows(context) else { panic!("two members") };
        let product = one.iter().zip(other).map(|(one, other)| one.powf(truth[0]) * other.powf(truth[1]));
        let mut row: Vec<f64> = product.collect();
        crate::simplex::normalize(&mut row);
        vec![row]
    };
    let fused = Conditionals::new((0..60).map(mixture).collect());
    let rows = held(&members, &fused.draw(&[1.0], 20_000, &mut random));
    let learned = learn(&rows, &Method::Gradient(GradientOptions::default()), &mut unobserved).unwrap();
    assert!((learned.weights[0] - truth[0]).abs() < 0.03, "{:?}", learned.weights);
}

#[test]
fn what_is_added_to_a_whole_row_makes_no_difference() {
    let (source, tokens) = random_tokens(5);
    let rows = held(&source, &tokens);
    let mut shifted = held(&source, &tokens);
    for (place, row) in shifted.rows.chunks_exact_mut(12).enumerate() {
        row.iter_mut().for_each(|value| *value += 8.0 * (place % 3) as f32);
    }
    let value = |rows: &Held| mean_log_prob(rows, &[0.2, 0.5, 0.3]).unwrap();
    assert!((value(&rows) - value(&shifted)).abs() < 1e-5);
}

#[test]
fn threads_and_blocks_change_no_bit() {
    let (source, tokens) = random_tokens(6);
    let rows = held(&source, &tokens);
    let mut objective = LogLinear::new(&rows, slice::from_ref(&(0..tokens.len()))).unwrap();
    objective.blocks = (0..tokens.len()).step_by(50).map(|start| start..start + 50).collect();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| objective.differentiate(&[0.2, 0.5, 0.3]).unwrap())
    };
    assert_eq!(on(1).mean_log_prob.to_bits(), on(4).mean_log_prob.to_bits());
    assert_eq!(on(1).gradient, on(4).gradient);
    let whole = LogLinear::new(&rows, slice::from_ref(&(0..tokens.len()))).unwrap();
    assert_eq!(whole.blocks.len(), 1);
    let value = |objective: &LogLinear<'_>| objective.mean_log_prob(&[0.2, 0.5, 0.3]).unwrap();
    assert!((value(&whole) - value(&objective)).abs() < 1e-12);
}

#[test]
fn cross_validation_holds_parts_out() {
    let (source, tokens) = random_tokens(7);
    let rows = held(&source, &tokens);
    let method = Method::Gradient(GradientOptions::default());
    let validated = cross_validate(&rows, &method, 3, &mut unobserved).unwrap();
    let part = validated.folds[1].held_out.clone();
    assert_eq!(part, 234..467);
    let rest: Vec<(usize, usize)> = [&tokens[..part.start], &tokens[part.end..]].concat();
    let alone = learn(&held(&source, &rest), &method, &mut unobserved).unwrap();
    for (one, other) in validated.folds[1].learned.weights.iter().zip(&alone.weights) {
        assert!((one - other).abs() < 1e-5);
    }
    let expected = (-naive(&source, &tokens[part], &alone.weights)).exp();
    assert!((validated.folds[1].perplexity - expected).abs() < 1e-4);
    assert!(matches!(
        cross_validate(&rows, &method, 1, &mut unobserved),
        Err(LearnError::TooFewFolds { .. })
    ));
}

#[test]
fn what_can_t_be_learned_from_is_refused() {
    let (source, tokens) = random_tokens(8);
    let method = Method::Gradient(GradientOptions::default());
    let refused =
        |rows: &Held, method: &Method| learn(rows, method, &mut unobserved).unwrap_err().to_string();
    let mut rows = held(&source, &tokens);
    assert_eq!(
        refused(&rows, &Method::Em(EmOptions::default())),
        "expectation-maximisation learns a weighted average; allowed for the exponents of log_linear: gradient, bayes"
    );
    rows.rows[36 * 5 + 12 + 4] = f32::NAN;
    assert_eq!(
        refused(&rows, &method),
        "member 1 gives id 4 at token 5 the log-probability NaN; allowed: a finite number"
    );
    let mut rows = held(&source, &tokens);
    rows.targets[9] = 12;
    assert_eq!(refused(&rows, &method), "token 9 is id 12; allowed: an id below 12");
    rows.broken = Some(3);
    let error = learn(&rows, &method, &mut unobserved).unwrap_err();
    assert_eq!(error.to_string(), "the rows of tokens 0 to 700 can't be read");
    assert_eq!(Error::source(&error).unwrap().to_string(), "the disk is gone");
    rows.targets.clear();
    assert_eq!(
        refused(&rows, &method),
        "dense rows of 0 tokens, 3 members and 12 ids; allowed: at least one of each, and at most 134217728 members \
         times ids"
    );
    for (members, vocab_size) in [(0, 5), (3, 0), (usize::MAX, 2), (1 << 14, 1 << 14)] {
        let rows = Held { members, vocab_size, rows: Vec::new(), targets: vec![0], broken: None };
        assert!(matches!(learn(&rows, &method, &mut unobserved), Err(LearnError::RowsShape { .. })));
    }
}

#[test]
fn a_source_may_fail_in_a_later_pass() {
    let (source, tokens) = random_tokens(9);
    struct Failing(Held, std::sync::atomic::AtomicUsize);
    impl DenseRows for Failing {
        fn members(&self) -> usize {
            3
        }
        fn vocab_size(&self) -> usize {
            12
        }
        fn tokens(&self) -> usize {
            self.0.targets.len()
        }
        fn read(
            &self,
            tokens: Range<usize>,
            rows: &mut [f32],
            targets: &mut [u32],
        ) -> Result<(), Box<dyn Error + Send + Sync>> {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 3 {
                return Err("the disk is gone".into());
            }
            self.0.read(tokens, rows, targets)
        }
    }
    for method in [Method::Gradient(GradientOptions::default()), Method::Bayes(BayesOptions::default())] {
        let rows = Failing(held(&source, &tokens), 0.into());
        assert!(matches!(learn(&rows, &method, &mut unobserved), Err(LearnError::Rows { .. })));
    }
}

#[test]
fn the_observer_ends_it() {
    let (source, tokens) = random_tokens(10);
    let mut observer = |progress: &Progress| {
        if progress.passes == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let method = Method::Gradient(GradientOptions::default());
    let learned = learn(&held(&source, &tokens), &method, &mut observer).unwrap();
    assert_eq!((learned.passes, learned.ended), (2, crate::learned::Ended::Stopped));
}
