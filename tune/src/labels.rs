//! How sure of its labels a member should be: a scale and a bias for each label, learned on texts whose labels are known.
//!
//! The probability of label c is proportional to exp(scale * l_c + bias_c), where l_c is the log-likelihood of the text under
//! the label: Bayes' rule with a learned prior, and a temperature (Guo et al. 2017, arXiv:1706.04599), which is multinomial
//! logistic regression on the log-likelihoods. argmin's L-BFGS finds the most likely ones. Knows nothing about texts.

use argmin::core::{CostFunction, Error, Executor, Gradient, State as _};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

/// What is learned of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelCalibration {
    /// Log-likelihoods are multiplied by it; at least 0.
    pub scale: f64,
    /// Label by label; they sum to 0.
    pub biases: Vec<f64>,
}

/// Texts of which nothing can be learned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// Nothing to learn from.
    #[error("there are no texts with labels; allowed: at least one")]
    NoTexts,
    /// Fewer than two labels.
    #[error("there are {0} labels; allowed: at least 2")]
    TooFewLabels(usize),
    /// A row of another length, a number that is none, or a label that is not there.
    #[error("text {text}: {what}")]
    Text {
        /// Which one, from 0.
        text: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The search failed.
    #[error("the calibration could not be computed: {0}")]
    Search(String),
}

/// Texts that are told apart without an error would have a scale without bounds: this much of its square is taken off, so small
/// that it decides nothing else.
const RIDGE: f64 = 1e-4;
const MEMORY: usize = 10;
const STEPS: u64 = 500;

impl LabelCalibration {
    /// The log-probabilities of the labels of a text.
    pub fn log_probs(&self, log_likelihoods: &[f64]) -> Vec<f64> {
        let scores = log_likelihoods.iter().zip(&self.biases);
        let mut scores: Vec<f64> = scores.map(|(likelihood, bias)| self.scale * likelihood + bias).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        scores.iter_mut().for_each(|score| *score -= largest + sum.ln());
        scores
    }
}

/// Learns a calibration: `log_likelihoods` has a row for each text and a number for each label, `labels` each text's label.
///
/// # Errors
/// Texts of which nothing can be learned.
///
/// ```
/// // A member that is far too sure: its log-likelihoods differ by 10 where it is right in 3 of 4 cases.
/// let rows = [[0.0, -10.0], [0.0, -10.0], [0.0, -10.0], [0.0, -10.0]].map(Vec::from);
/// let turned = rows.clone().map(|row| vec![row[1], row[0]]);
/// let rows = [rows, turned].concat();
/// let learned = chorus_tune::calibrate_labels(&rows, &[0, 0, 0, 1, 1, 1, 1, 0])?;
/// let sure = learned.log_probs(&rows[0])[0].exp();
/// assert!((sure - 0.75).abs() < 1e-3);
/// # Ok::<(), chorus_tune::LabelError>(())
/// ```
pub fn calibrate_labels(
    log_likelihoods: &[Vec<f64>],
    labels: &[usize],
) -> Result<LabelCalibration, LabelError> {
    let count = check(log_likelihoods, labels)?;
    let differences: Vec<Vec<f64>> = log_likelihoods.iter().map(|row| centred(row)).collect();
    let squares: f64 = differences.iter().flatten().map(|value| value * value).sum();
    // In units in which they are about 1, so that all directions are alike.
    let unit = (squares / (differences.len() * count) as f64).sqrt().max(f64::MIN_POSITIVE);
    let rows = differences.into_iter().map(|row| row.into_iter().map(|value| value / unit).collect());
    let problem = Problem { rows: rows.collect(), labels: labels.to_vec(), is_scaled: true };
    let mut found = problem.solve(vec![0.0; count + 1])?;
    if found[0] < 0.0 {
        // It is wrong more often than right: what it says counts nothing.
        found = Problem { is_scaled: false, ..problem }.solve(vec![0.0; count + 1])?;
        found[0] = 0.0;
    }
    let biases = centred(&found[1..]);
    Ok(LabelCalibration { scale: found[0] / unit, biases })
}

fn check(log_likelihoods: &[Vec<f64>], labels: &[usize]) -> Result<usize, LabelError> {
    let Some(count) = log_likelihoods.first().map(Vec::len).filter(|_| log_likelihoods.len() == labels.len())
    else {
        return Err(LabelError::NoTexts);
    };
    if count < 2 {
        return Err(LabelError::TooFewLabels(count));
    }
    for (text, (row, label)) in log_likelihoods.iter().zip(labels).enumerate() {
        let wrong = |what| Err(LabelError::Text { text, what });
        if row.len() != count {
            return wrong("it has another number of log-likelihoods than the first");
        }
        if !row.iter().all(|value| value.is_finite()) {
            return wrong("a log-likelihood is not finite");
        }
        if *label >= count {
            return wrong("its label is none of those");
        }
    }
    Ok(count)
}

fn centred(row: &[f64]) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter().map(|value| value - mean).collect()
}

/// The mean negative log-probability of the labels, by scale and biases.
struct Problem {
    rows: Vec<Vec<f64>>,
    labels: Vec<usize>,
    /// Whether the scale is learned, too; else it is 0.
    is_scaled: bool,
}

impl Problem {
    fn solve(&self, start: Vec<f64>) -> Result<Vec<f64>, LabelError> {
        let failed = |error: Error| LabelError::Search(error.to_string());
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY).with_tolerance_cost(1e-14);
        let solver = solver.and_then(|solver| solver.with_tolerance_grad(1e-9)).map_err(failed)?;
        let executor = Executor::new(self, solver).ctrlc(false);
        let result = executor.configure(|state| state.param(start).max_iters(STEPS)).run();
        let best = result.map_err(failed)?.state().get_best_param().cloned();
        best.ok_or_else(|| LabelError::Search("nothing was found".to_owned()))
    }

    fn calibration(&self, parameters: &[f64]) -> LabelCalibration {
        let scale = if self.is_scaled { parameters[0] } else { 0.0 };
        LabelCalibration { scale, biases: parameters[1..].to_vec() }
    }
}

impl CostFunction for &Problem {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, Error> {
        let calibration = self.calibration(parameters);
        let texts = self.rows.iter().zip(&self.labels);
        let sum: f64 = texts.map(|(row, label)| calibration.log_probs(row)[*label]).sum();
        let squares: f64 = parameters.iter().map(|value| value * value).sum();
        Ok(-sum / self.rows.len() as f64 + RIDGE / 2.0 * squares)
    }
}

impl Gradient for &Problem {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, parameters: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let calibration = self.calibration(parameters);
        let mut gradient: Vec<f64> = parameters.iter().map(|value| RIDGE * value).collect();
        for (row, label) in self.rows.iter().zip(&self.labels) {
            let log_probs = calibration.log_probs(row);
            for (place, (log_prob, value)) in log_probs.iter().zip(row).enumerate() {
                let off = (log_prob.exp() - f64::from(place == *label)) / self.rows.len() as f64;
                gradient[place + 1] += off;
                if self.is_scaled {
                    gradient[0] += off * value;
                }
            }
        }
        Ok(gradient)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Texts whose labels are drawn from what a calibration says of random log-likelihoods.
    fn texts(truth: &LabelCalibration, count: usize, seed: u64) -> (Vec<Vec<f64>>, Vec<usize>) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = move || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let rows: Vec<Vec<f64>> = (0..count)
            .map(|_| (0..truth.biases.len()).map(|_| -200.0 + 40.0 * uniform()).collect())
            .collect();
        let labels = rows.iter().map(|row| {
            let (log_probs, place) = (truth.log_probs(row), uniform());
            let mut sum = 0.0;
            let past = log_probs.iter().position(|log_prob| {
                sum += log_prob.exp();
                sum > place
            });
            past.unwrap_or(0)
        });
        let labels = labels.collect();
        (rows, labels)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_the_texts_were_drawn_from_is_found(
            scale in 0.02..0.3_f64,
            bias in -1.0..1.0_f64,
            seed in any::<u64>(),
        ) {
            let truth = LabelCalibration { scale, biases: vec![bias, -bias / 2.0, -bias / 2.0] };
            let (rows, labels) = texts(&truth, 4000, seed);
            let learned = calibrate_labels(&rows, &labels).unwrap();
            prop_assert!((learned.scale - scale).abs() < 0.15 * scale + 0.005, "{:?}", learned);
            for (learned, truth) in learned.biases.iter().zip(&truth.biases) {
                prop_assert!((learned - truth).abs() < 0.25, "{} {}", learned, truth);
            }
            // The conditions of the optimum: on average every label is as likely as it is frequent.
            for place in 0..3 {
                let expected: f64 = rows.iter().map(|row| learned.log_probs(row)[place].exp()).sum();
                let came = labels.iter().filter(|label| **label == place).count() as f64;
                prop_assert!((expected - came).abs() < 4.0, "label {}: {} {}", place, expected, came);
            }
        }
    }

    #[test]
    fn a_member_that_is_wrong_more_often_than_right_counts_nothing() {
        let rows = vec![vec![0.0, -5.0], vec![-5.0, 0.0], vec![0.0, -5.0]];
        let learned = calibrate_labels(&rows, &[1, 0, 1]).unwrap();
        assert_eq!(learned.scale, 0.0);
        assert!(learned.biases[1] > 0.0);
    }

    #[test]
    fn texts_that_are_told_apart_without_an_error_have_a_finite_scale() {
        let rows = vec![vec![0.0, -5.0], vec![-5.0, 0.0]];
        let learned = calibrate_labels(&rows, &[0, 1]).unwrap();
        assert!(learned.scale.is_finite() && learned.log_probs(&rows[0])[0].exp() > 0.99);
    }

    #[test]
    fn what_nothing_can_be_learned_from_is_refused() {
        let text = |what| LabelError::Text { text: 1, what };
        for (rows, labels, error) in [
            (vec![], vec![], LabelError::NoTexts),
            (vec![vec![1.0, 2.0]], vec![], LabelError::NoTexts),
            (vec![vec![1.0]], vec![0], LabelError::TooFewLabels(1)),
            (
                vec![vec![1.0, 2.0], vec![1.0]],
                vec![0, 0],
                text("it has another number of log-likelihoods than the first"),
            ),
            (vec![vec![1.0, 2.0], vec![f64::NAN, 2.0]], vec![0, 0], text("a log-likelihood is not finite")),
            (vec![vec![1.0, 2.0], vec![1.0, 2.0]], vec![0, 2], text("its label is none of those")),
        ] {
            assert_eq!(calibrate_labels(&rows, &labels), Err(error));
        }
    }
}
