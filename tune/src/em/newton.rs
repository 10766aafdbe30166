//! The leap to the maximum of a parabola on the simplex: what a concave function's value, slope and curvature at a point say
//! about where its maximum is. Knows nothing about tokens.

use nalgebra::{DMatrix, DVector};

/// What keeps a weight where it is when no other weight would differ from it in effect (copies of a member), as a share of the
/// mean curvature.
const INERTIA: f64 = 1e-9;

/// The weights b on the simplex with the largest g·(b - a) - (b - a)·H(b - a) / 2, where g is the slope at a and H the negative
/// of the second derivative: sequential quadratic programming for mixtures (Kim, Carbonetto, Stephens and Anitescu 2020, "A
/// Fast Algorithm for Maximum Likelihood Estimation of Mixture Proportions Using Sequential Quadratic Programming"), solved by
/// an active set. `None` where numbers are not fit for it.
pub(super) fn leap(weights: &[f64], slope: &[f64], curvature: &DMatrix<f64>) -> Option<Vec<f64>> {
    let members = weights.len();
    let inertia = INERTIA * curvature.trace() / members as f64;
    let curvature = curvature + DMatrix::from_diagonal_element(members, members, inertia);
    let here = DVector::from_column_slice(weights);
    // The slope of the parabola at b is rising - H b.
    let rising = DVector::from_column_slice(slope) + &curvature * &here;
    let mut free: Vec<usize> = (0..members).filter(|member| weights[*member] > 0.0).collect();
    let mut best = here;
    // Every set of free weights comes up once at most in exact arithmetic; a few for each member are what it takes.
    for _ in 0..8 * members {
        let (candidate, level) = on_face(&free, &rising, &curvature)?;
        if let Some(share) = first_crossing(&free, &best, &candidate) {
            best += (candidate - &best) * share;
            free.retain(|member| best[*member] > 1e-15);
            (0..members).filter(|member| !free.contains(member)).for_each(|member| best[member] = 0.0);
            continue;
        }
        best = candidate;
        let steepness = &rising - &curvature * &best;
        let gain = |member: &usize| steepness[*member] - level;
        let outside = (0..members).filter(|member| !free.contains(member));
        match outside.filter(|member| gain(member) > 1e-14).max_by(|a, b| gain(a).total_cmp(&gain(b))) {
            Some(member) => free.push(member),
            None => return Some(best.iter().copied().collect()),
        }
    }
    None
}

/// The parabola's maximum where only the free weights differ from 0 and their sum is one, and its slope there, the same for
/// each of them: the solution of H b + level 1 = rising, 1·b = 1.
fn on_face(free: &[usize], rising: &DVector<f64>, curvature: &DMatrix<f64>) -> Option<(DVector<f64>, f64)> {
    let count = free.len();
    let entry = |row: usize, column: usize| match (free.get(row), free.get(column)) {
        (Some(&row), Some(&column)) => curvature[(row, column)],
        (None, None) => 0.0,
        _ => 1.0,
    };
    let system = DMatrix::from_fn(count + 1, count + 1, entry);
    let right = DVector::from_fn(count + 1, |row, _| free.get(row).map_or(1.0, |member| rising[*member]));
    let solution = system.lu().solve(&right)?;
    if solution.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut weights = DVector::zeros(rising.len());
    for (place, member) in free.iter().enumerate() {
        weights[*member] = solution[place];
    }
    Some((weights, solution[count]))
}

/// How far one can go before a weight is negative, as a share of the way; `None` where none becomes so.
fn first_crossing(free: &[usize], from: &DVector<f64>, to: &DVector<f64>) -> Option<f64> {
    let crossing = free.iter().filter(|member| to[**member] < 0.0);
    crossing.map(|member| from[*member] / (from[*member] - to[*member])).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// On the simplex a concave function is at its maximum where no weight that is free to grow has a steeper slope.
        #[test]
        fn it_is_the_maximum_of_the_parabola(
            rows in prop::collection::vec(prop::collection::vec(0.0..2.0_f64, 4), 6),
            slope in prop::collection::vec(0.0..2.0_f64, 4), zeros in prop::collection::vec(any::<bool>(), 3),
        ) {
            let rows = DMatrix::from_fn(6, 4, |row, column| rows[row][column]);
            let curvature = rows.transpose() * &rows;
            let mut weights = vec![1.0; 4];
            zeros.iter().zip(&mut weights).filter(|(zero, _)| **zero).for_each(|(_, weight)| *weight = 0.0);
            crate::simplex::normalize(&mut weights);
            let leap = leap(&weights, &slope, &curvature).unwrap();
            prop_assert!((leap.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(leap.iter().all(|weight| *weight >= 0.0));
            let step = DVector::from_column_slice(&leap) - DVector::from_column_slice(&weights);
            let there = DVector::from_column_slice(&slope) - &curvature * step;
            let steepest = there.max();
            for (weight, slope) in leap.iter().zip(there.iter()) {
                prop_assert!(*weight < 1e-7 || steepest - slope < 1e-5, "{} {}", leap.len(), there);
            }
        }
    }

    #[test]
    fn copies_stay_where_they_are() {
        // Two columns that are the same: only their sum matters.
        let rows = DMatrix::from_row_slice(3, 3, &[1.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.5, 0.5, 0.0]);
        let leap = leap(&[0.3, 0.3, 0.4], &[1.0, 1.0, 0.9], &(rows.transpose() * &rows)).unwrap();
        assert!((leap[0] - leap[1]).abs() < 1e-6);
    }
}
