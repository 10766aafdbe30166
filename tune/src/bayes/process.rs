//! A Gaussian process: what values at some points say about the values everywhere else. Knows nothing about weights, or about
//! which point is looked at next.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

/// Distances over which values are alike, of which the likeliest is taken: on the scale of points of the unit sphere.
const LENGTHS: [f64; 12] = [0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.6, 2.4, 3.6, 5.4, 8.0];

/// Variances of noise, as shares of the process's own: values without noise keep a little for the arithmetic's sake.
const NOISES: [f64; 4] = [1e-9, 1e-7, 1e-5, 1e-3];

/// A process with a constant mean and a Matérn covariance with smoothness 5/2 (Rasmussen and Williams 2006, equation 4.17),
/// which has seen values.
pub(super) struct Process {
    points: Vec<Vec<f64>>,
    length: f64,
    mean: f64,
    variance: f64,
    /// K⁻¹, K⁻¹(y - mean) and K⁻¹1 of the correlations between the points.
    inverse: DMatrix<f64>,
    residual: DVector<f64>,
    ones: DVector<f64>,
}

impl Process {
    /// The process under which the values are likeliest, over length and noise; mean and variance follow from these. `None` where
    /// no correlations can be inverted.
    pub(super) fn fit(points: &[Vec<f64>], values: &[f64]) -> Option<Self> {
        let squares = DMatrix::from_fn(points.len(), points.len(), |row, column| {
            squared_distance(&points[row], &points[column])
        });
        let values = DVector::from_column_slice(values);
        let settings = LENGTHS.iter().flat_map(|length| NOISES.iter().map(move |noise| (*length, *noise)));
        let fits = settings.filter_map(|(length, noise)| Fit::new(&squares, &values, length, noise));
        let best = fits.max_by(|a, b| a.log_likelihood.total_cmp(&b.log_likelihood))?;
        let inverse = best.cholesky.inverse();
        Some(Self {
            points: points.to_vec(),
            length: best.length,
            mean: best.mean,
            variance: best.variance,
            residual: &inverse * values.add_scalar(-best.mean),
            ones: inverse.column_sum(),
            inverse,
        })
    }

    /// Mean and standard deviation of the value at a point.
    pub(super) fn predict(&self, point: &[f64]) -> (f64, f64) {
        let correlations = self.points.iter().map(|seen| matern(squared_distance(seen, point), self.length));
        let correlations = DVector::from_iterator(self.points.len(), correlations);
        let mean = self.mean + correlations.dot(&self.residual);
        // The last term is what not knowing the mean adds.
        let unknown_mean = (1.0 - self.ones.dot(&correlations)).powi(2) / self.ones.sum();
        let share = 1.0 - correlations.dot(&(&self.inverse * &correlations)) + unknown_mean;
        (mean, (self.variance * share.max(0.0)).sqrt())
    }
}

/// A setting with how likely it makes the values.
struct Fit {
    length: f64,
    mean: f64,
    variance: f64,
    log_likelihood: f64,
    cholesky: Cholesky<f64, Dyn>,
}

impl Fit {
    fn new(squares: &DMatrix<f64>, values: &DVector<f64>, length: f64, noise: f64) -> Option<Self> {
        let count = values.len();
        let mut correlations = squares.map(|square| matern(square, length));
        correlations.fill_diagonal(1.0 + noise);
        let cholesky = Cholesky::new(correlations)?;
        let ones = cholesky.solve(&DVector::from_element(count, 1.0));
        // Generalised least squares for the mean, and the variance that goes with it.
        let mean = ones.dot(values) / ones.sum();
        let rest = values.add_scalar(-mean);
        let variance = rest.dot(&cholesky.solve(&rest)) / count as f64;
        let log_likelihood = -0.5 * (count as f64 * variance.ln() + cholesky.ln_determinant());
        log_likelihood.is_finite().then_some(Self { length, mean, variance, log_likelihood, cholesky })
    }
}

fn matern(squared_distance: f64, length: f64) -> f64 {
    let scaled = (5.0 * squared_distance).sqrt() / length;
    (1.0 + scaled + scaled * scaled / 3.0) * (-scaled).exp()
}

fn squared_distance(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_line() -> (Vec<Vec<f64>>, Vec<f64>) {
        let points: Vec<Vec<f64>> = (0..9).map(|place| vec![f64::from(place) / 4.0]).collect();
        let values = points.iter().map(|point| (2.0 * point[0]).sin() + 3.0).collect();
        (points, values)
    }

    #[test]
    fn it_goes_through_what_it_has_seen_and_is_sure_there() {
        let (points, values) = on_a_line();
        let process = Process::fit(&points, &values).unwrap();
        for (point, value) in points.iter().zip(&values) {
            let (mean, deviation) = process.predict(point);
            assert!((mean - value).abs() < 1e-3 && deviation < 1e-2, "{mean} {value} {deviation}");
        }
    }

    #[test]
    fn between_points_it_is_near_and_far_from_them_unsure() {
        let (points, values) = on_a_line();
        let process = Process::fit(&points, &values).unwrap();
        for place in [0.1, 0.6, 1.1, 1.9] {
            let (mean, deviation) = process.predict(&[place]);
            let truth = (2.0 * place).sin() + 3.0;
            assert!((mean - truth).abs() < 4.0 * deviation + 1e-3 && (mean - truth).abs() < 0.02);
        }
        assert!(process.predict(&[9.0]).1 > 20.0 * process.predict(&[1.1]).1);
    }

    #[test]
    fn the_covariance_is_the_matern_of_the_book() {
        let expected = |r: f64, l: f64| {
            let s = 5.0_f64.sqrt() * r / l;
            (1.0 + s + 5.0 * r * r / (3.0 * l * l)) * (-s).exp()
        };
        for (distance, length) in [(0.0, 1.0), (0.3, 1.1), (2.0, 0.4)] {
            assert!((matern(distance * distance, length) - expected(distance, length)).abs() < 1e-15);
        }
    }

    #[test]
    fn equal_values_and_equal_points_are_borne() {
        let points = vec![vec![0.5, 0.5]; 4];
        assert!(
            Process::fit(&points, &[1.0; 4]).is_none_or(|process| process.predict(&[0.5, 0.5]).0.is_finite())
        );
        let process = Process::fit(&points, &[1.0, 2.0, 1.0, 2.0]).unwrap();
        assert!((process.predict(&[0.5, 0.5]).0 - 1.5).abs() < 1e-3);
    }
}
