//! A steady step allocates nothing: fusing rows and choosing a token write on what an earlier step has left.

#![allow(clippy::unwrap_used)]

use chorus_coordinator::fusion::{Fused, Fusion, Norm, Row, Rule, Scratch, fuse};
use chorus_coordinator::sampling::Sampling;
use chorus_simd::norm;

const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
const SAMPLINGS: [Sampling; 9] = [
    Sampling { temperature: 0.0, ..PLAIN },
    PLAIN,
    Sampling { temperature: 0.1, ..PLAIN },
    Sampling { temperature: 0.8, ..PLAIN },
    Sampling { temperature: 5.0, ..PLAIN },
    Sampling { top_k: 1, ..PLAIN },
    Sampling { top_k: 40, ..PLAIN },
    Sampling { top_p: 0.9, ..PLAIN },
    Sampling { temperature: 1.2, top_k: 300, top_p: 0.95 },
];

/// Logits of a member at a step. Tokens that are as likely as each other are among them, and some that f32 does not hold.
fn row(member: u64, step: u64, vocabulary_size: u64) -> (Vec<f32>, Norm) {
    let logit = |id: u64| match (id + step) % 97 {
        0 => -300.0,
        _ => ((id * 7919 + step * 104_729) % 2003) as f32 / 200.0 + (member * id % 5) as f32 / 4.0,
    };
    let logits: Vec<f32> = (0..vocabulary_size).map(logit).collect();
    let norm = norm(&logits);
    (logits, norm)
}

/// Fuses one step and chooses by every sampling; gives how often that allocated.
fn step(rule: Rule, step: u64, vocabulary_size: u64, scratch: &mut Scratch) -> u64 {
    let rows: Vec<(Vec<f32>, Norm)> = (0..3).map(|member| row(member, step, vocabulary_size)).collect();
    let rows = rows.iter().zip([0.5, 0.3, 0.0]);
    let rows: Vec<(f64, Row<'_>)> = rows
        .map(|((logits, norm), weight)| (weight, Row::new(logits, *norm, logits.len()).unwrap()))
        .collect();
    let mut log_prob = 0.0;
    let counted = allocation_counter::measure(|| log_prob = choose(rule, &rows, scratch));
    assert!(log_prob < 0.0);
    counted.count_total
}

/// The log-probabilities of what every sampling chooses, added up.
fn choose(rule: Rule, rows: &[(f64, Row<'_>)], scratch: &mut Scratch) -> f64 {
    let mut log_prob = 0.0;
    for (sampling, uniform) in SAMPLINGS.into_iter().zip([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) {
        match fuse(&Fusion { rule, threshold: 0.01 }, rows, scratch).unwrap() {
            Fused::Distribution(mut distribution) => {
                let token = sampling.choose(&mut distribution, uniform);
                log_prob += distribution.log_prob(token).unwrap();
            }
            Fused::Winner(winner) => log_prob += winner.mixture.log_prob(winner.id).unwrap(),
        }
    }
    log_prob
}

#[test]
fn a_steady_step_allocates_nothing() {
    for rule in Rule::ALL {
        let mut scratch = Scratch::default();
        let first = step(rule, 0, 20_000, &mut scratch);
        assert!(first > 0, "the counter counts");
        for (index, vocabulary_size) in [20_000, 20_000, 50, 20_000, 7000, 20_000].into_iter().enumerate() {
            let found = step(rule, 1 + index as u64, vocabulary_size, &mut scratch);
            assert_eq!(found, 0, "{rule}, {vocabulary_size} tokens");
        }
    }
}

#[test]
fn what_a_thread_lends_is_there_again() {
    let lent = |index| Scratch::lent(|scratch| step(Rule::WeightedAverage, index, 20_000, scratch));
    assert!(lent(0) > 0);
    assert_eq!((lent(1), lent(2)), (0, 0));
}
