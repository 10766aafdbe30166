//! Which weights are worth an evaluation: where the improvement that a process expects is largest on the simplex. Knows nothing
//! about what the values mean.

use rand_chacha::ChaCha8Rng;

use super::process::Process;
use crate::simplex::{normalize, towards};
use crate::synthetic::{exponential, unit};

/// Points of the whole simplex, and points around the best ones, that are compared.
const SCATTERED: usize = 200;
const NEAR: usize = 200;

/// The best of them are walked uphill from.
const WALKS: usize = 3;

/// The largest and the smallest step of a walk.
const STEPS: [f64; 2] = [0.1, 3e-4];

/// The place where a process sees weights: the square roots are a point of the unit sphere, whose distances are those between
/// distributions (Hellinger), so that near an edge, where a weight counts most, points are far apart.
pub(super) fn place(weights: &[f64]) -> Vec<f64> {
    weights.iter().map(|weight| weight.sqrt()).collect()
}

/// Weights drawn evenly from the simplex, or from one of its faces: any optimum may lie there.
pub(super) fn scattered(members: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
    let on_face = members > 1 && unit(random) < 0.5;
    let mut weights: Vec<f64> = (0..members).map(|_| exponential(random)).collect();
    if on_face {
        let kept = (unit(random) * members as f64) as usize;
        for (member, weight) in weights.iter_mut().enumerate() {
            if member != kept && unit(random) < 0.5 {
                *weight = 0.0;
            }
        }
    }
    normalize(&mut weights);
    weights
}

/// The weights with the largest expected improvement on `best`; `leading` are weights to look around.
pub(super) fn most_promising(
    process: &Process,
    best: f64,
    leading: &[&[f64]],
    random: &mut ChaCha8Rng,
) -> Option<Vec<f64>> {
    let members = leading.first()?.len();
    let score = |weights: &[f64]| {
        let (mean, deviation) = process.predict(&place(weights));
        log_expected_improvement(mean, deviation, best)
    };
    let mut candidates: Vec<Vec<f64>> = (0..SCATTERED).map(|_| scattered(members, random)).collect();
    candidates.extend((0..NEAR).map(|index| near(leading[index % leading.len()], random)));
    let mut scored: Vec<(f64, Vec<f64>)> =
        candidates.into_iter().map(|weights| (score(&weights), weights)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let walked = scored.into_iter().take(WALKS).map(|start| uphill(start, score));
    walked.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, weights)| weights)
}

/// Weights moved towards others of the simplex, by a length of any order of magnitude.
fn near(weights: &[f64], random: &mut ChaCha8Rng) -> Vec<f64> {
    let share = 10.0_f64.powf(-3.0 * unit(random));
    towards(weights, &scattered(weights.len(), random), share)
}

/// Moves weight from one member to another as long as that scores higher, in portions of the largest step first and of a third
/// of that each time when none does any more.
fn uphill(start: (f64, Vec<f64>), score: impl Fn(&[f64]) -> f64) -> (f64, Vec<f64>) {
    let (mut best, mut weights) = start;
    let [mut portion, least] = STEPS;
    while portion >= least {
        let mut is_better = false;
        let members = weights.len();
        for (from, to) in (0..members * members).map(|pair| (pair / members, pair % members)) {
            let moved_weight = portion.min(weights[from]);
            if from == to || moved_weight <= 0.0 {
                continue;
            }
            let mut moved = weights.clone();
            moved[from] -= moved_weight;
            moved[to] += moved_weight;
            let found = score(&moved);
            if found > best {
                (best, weights, is_better) = (found, moved, true);
            }
        }
        if !is_better {
            portion /= 3.0;
        }
    }
    (best, weights)
}

/// ln E[max(y - best, 0)] of a normally distributed y (Ament et al. 2023, "Unexpected Improvements to Expected Improvement"):
/// ln s + ln (phi(z) + z Phi(z)) with z = (mean - best) / s, which has a slope where the improvement itself underflows.
fn log_expected_improvement(mean: f64, deviation: f64, best: f64) -> f64 {
    if deviation <= 0.0 {
        return (mean - best).max(0.0).ln();
    }
    let z = (mean - best) / deviation;
    let log_density = -0.5 * z * z - 0.5 * (2.0 * std::f64::consts::PI).ln();
    let log_gain = if z > -8.0 {
        let below = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
        (log_density.exp() + z * below).ln()
    } else {
        // The first terms of the expansion for large -z.
        let square = z * z;
        log_density - square.ln() + (1.0 - 3.0 / square + 15.0 / (square * square)).ln()
    };
    deviation.ln() + log_gain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E[max(y - best, 0)] summed over slices of the normal density.
    fn by_slices(mean: f64, deviation: f64, best: f64) -> f64 {
        let slices = 400_000;
        let width = 30.0 * deviation / f64::from(slices);
        let gain = |slice: i32| {
            let y = best + (f64::from(slice) + 0.5) * width;
            let z = (y - mean) / deviation;
            (y - best) * (-0.5 * z * z).exp() / (deviation * (2.0 * std::f64::consts::PI).sqrt()) * width
        };
        (0..slices).map(gain).sum()
    }

    #[test]
    fn the_expected_improvement_is_the_integral() {
        for (mean, deviation, best) in
            [(1.0, 0.5, 0.0), (0.0, 1.0, 0.0), (-1.0, 0.3, 0.0), (-7.9, 1.0, 0.0), (-8.1, 1.0, 0.0)]
        {
            let (ours, slices) =
                (log_expected_improvement(mean, deviation, best), by_slices(mean, deviation, best));
            assert!((ours - slices.ln()).abs() < 1e-3, "{mean} {deviation}: {ours} and {}", slices.ln());
        }
        assert!(log_expected_improvement(-100.0, 1.0, 0.0) > log_expected_improvement(-101.0, 1.0, 0.0));
        assert_eq!(log_expected_improvement(1.0, 0.0, 0.0), 0.0);
        assert_eq!(log_expected_improvement(-1.0, 0.0, 0.0), f64::NEG_INFINITY);
    }
}
