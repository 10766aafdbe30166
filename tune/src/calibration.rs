//! Whether somebody who is sure is right as often: reliability by confidence. Knows nothing about who that is.

/// How predictions are put into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bins {
    /// So many bins of equal width; the last includes its upper end, each its upper and not its lower one (the first includes 0).
    EqualWidth(usize),
    /// So many bins, about equally many predictions in each. Equal confidences stay in one bin, so there may be fewer.
    EqualMass(usize),
}

/// The predictions of one bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliabilityBin {
    /// The least confidence that belongs here.
    pub lower: f64,
    /// The largest.
    pub upper: f64,
    /// How many predictions there are.
    pub count: usize,
    /// Their mean confidence; 0 where there are none.
    pub confidence: f64,
    /// The share of them that is right; 0 where there are none.
    pub accuracy: f64,
}

/// How far confidence is from accuracy.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// By rising confidence.
    pub bins: Vec<ReliabilityBin>,
    /// The expected calibration error, sum_b n_b / n |accuracy_b - confidence_b| (Guo et al. 2017, "On Calibration of Modern Neural
    /// Networks", equation 3).
    pub expected_error: f64,
    /// The largest |accuracy_b - confidence_b| of a bin with predictions (equation 4).
    pub largest_error: f64,
    /// The share of all predictions that is right.
    pub accuracy: f64,
    /// The mean confidence of all predictions.
    pub confidence: f64,
}

/// A calibration that doesn't exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// Nothing was predicted.
    #[error("there are no predictions; allowed: at least one")]
    NoPredictions,
    /// Nowhere to put them.
    #[error("{bins} bins; allowed: 1 to {most}")]
    Bins {
        /// What was asked for.
        bins: usize,
        /// How many there may be.
        most: usize,
    },
    /// NaN, or no probability.
    #[error("prediction {prediction} has the confidence {confidence}; allowed: a number from 0 to 1")]
    Confidence {
        /// Which one, from 0.
        prediction: usize,
        /// What was given.
        confidence: f64,
    },
}

/// The most bins that there may be: finer than anybody can see.
const MOST_BINS: usize = 10_000;

/// How far above 1 rounding may bring a confidence.
const ROUNDING: f64 = 1e-9;

impl Calibration {
    /// Puts predictions (the probability that was given to what was predicted, whether it came) into bins.
    ///
    /// # Errors
    /// No predictions, no bins or more than 10,000, a confidence that is NaN or outside 0 to 1 by more than rounding (1e-9).
    pub fn new(predictions: &[(f64, bool)], bins: Bins) -> Result<Self, CalibrationError> {
        let (Bins::EqualWidth(wanted) | Bins::EqualMass(wanted)) = bins;
        if !(1..=MOST_BINS).contains(&wanted) {
            return Err(CalibrationError::Bins { bins: wanted, most: MOST_BINS });
        }
        if predictions.is_empty() {
            return Err(CalibrationError::NoPredictions);
        }
        let is_probability = |confidence: f64| (-ROUNDING..=1.0 + ROUNDING).contains(&confidence);
        if let Some(prediction) = predictions.iter().position(|(confidence, _)| !is_probability(*confidence))
        {
            let (confidence, _) = predictions[prediction];
            return Err(CalibrationError::Confidence { prediction, confidence });
        }
        let mut sorted: Vec<(f64, bool)> = predictions
            .iter()
            .map(|(confidence, is_right)| (confidence.clamp(0.0, 1.0), *is_right))
            .collect();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let bins = match bins {
            Bins::EqualWidth(bins) => equal_width(&sorted, bins),
            Bins::EqualMass(bins) => equal_mass(&sorted, bins),
        };
        let total = sorted.len() as f64;
        let errors =
            || bins.iter().filter(|bin| bin.count > 0).map(|bin| (bin.accuracy - bin.confidence).abs());
        let shares = bins.iter().filter(|bin| bin.count > 0).map(|bin| bin.count as f64 / total);
        let all = ReliabilityBin::new(0.0, 1.0, &sorted);
        Ok(Self {
            expected_error: errors().zip(shares).map(|(error, share)| error * share).sum(),
            largest_error: errors().fold(0.0, f64::max),
            accuracy: all.accuracy,
            confidence: all.confidence,
            bins,
        })
    }
}

impl ReliabilityBin {
    fn new(lower: f64, upper: f64, predictions: &[(f64, bool)]) -> Self {
        let count = predictions.len();
        let share = |sum: f64| if count > 0 { sum / count as f64 } else { 0.0 };
        let confidence = share(predictions.iter().map(|(confidence, _)| confidence).sum());
        let right = predictions.iter().filter(|(_, is_right)| *is_right).count();
        Self { lower, upper, count, confidence, accuracy: share(right as f64) }
    }
}

fn equal_width(sorted: &[(f64, bool)], bins: usize) -> Vec<ReliabilityBin> {
    let end = |bin: usize| (bin + 1) as f64 / bins as f64;
    let mut rest = sorted;
    let mut filled = Vec::with_capacity(bins);
    for bin in 0..bins {
        let upper = end(bin);
        let (own, others) = rest.split_at(rest.partition_point(|(confidence, _)| *confidence <= upper));
        filled.push(ReliabilityBin::new(bin as f64 / bins as f64, upper, own));
        rest = others;
    }
    filled
}

fn equal_mass(sorted: &[(f64, bool)], bins: usize) -> Vec<ReliabilityBin> {
    let mut filled = Vec::with_capacity(bins.min(sorted.len()));
    let mut start = 0;
    for bin in 0..bins {
        let wanted = (bin + 1) * sorted.len() / bins;
        if wanted <= start {
            continue;
        }
        let (last, _) = sorted[wanted - 1];
        let end = sorted.partition_point(|(confidence, _)| *confidence <= last);
        filled.push(ReliabilityBin::new(sorted[start].0, last, &sorted[start..end]));
        start = end;
    }
    filled
}

#[cfg(test)]
mod tests;
