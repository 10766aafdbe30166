//! How the learning rate falls. A pure function of the position in the run. Knows nothing about gradients.

use serde::{Deserialize, Serialize};

/// How the learning rate falls in the course of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It does not fall.
    None,
    /// Along half a cosine wave from the initial rate to zero after the last step of the last epoch
    /// (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    /// Multiplied by `factor` at the beginning of every epoch after the first `after` ones (Zaremba 2014).
    Epochs {
        /// The factor, in (0, 1].
        factor: f64,
        /// How many epochs run at the initial rate.
        after: usize,
    },
    /// Multiplied by `factor` whenever an epoch does not improve the validation perplexity.
    Plateau {
        /// The factor, in (0, 1].
        factor: f64,
    },
}

/// Where in a run a step is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Steps taken before this one, and those of the whole run.
    pub(crate) step: u64,
    pub(crate) steps: u64,
    /// Epochs completed.
    pub(crate) epoch: usize,
    /// Epochs that did not improve the validation perplexity.
    pub(crate) plateaus: usize,
}

impl Decay {
    /// The learning rate at `place`, given the initial one.
    pub(crate) fn rate(self, initial: f64, place: Place) -> f64 {
        match self {
            Self::None => initial,
            Self::Cosine => {
                let done = place.step as f64 / place.steps.max(1) as f64;
                initial * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Self::Epochs { factor, after } => {
                initial * factor.powi((place.epoch + 1).saturating_sub(after) as i32)
            }
            Self::Plateau { factor } => initial * factor.powi(place.plateaus as i32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Place = Place { step: 0, steps: 100, epoch: 0, plateaus: 0 };

    #[test]
    fn the_cosine_falls_from_the_initial_rate_over_its_half_to_zero() {
        let rate = |step| Decay::Cosine.rate(0.2, Place { step, ..START });
        assert_eq!(rate(0), 0.2);
        assert!((rate(50) - 0.1).abs() < 1e-15);
        // 0.2 * (1 + cos(pi / 4)) / 2
        assert!((rate(25) - 0.170_710_678_118_654_77).abs() < 1e-15);
        assert!(rate(100).abs() < 1e-15);
    }

    #[test]
    fn zarembas_medium_model_keeps_its_rate_for_six_epochs_and_divides_it_by_1_2_from_the_seventh() {
        let decay = Decay::Epochs { factor: 1.0 / 1.2, after: 6 };
        let rate = |epoch| decay.rate(1.0, Place { epoch, ..START });
        assert_eq!(rate(5), 1.0);
        assert!((rate(6) - 1.0 / 1.2).abs() < 1e-15);
        assert!((rate(8) - 1.0 / 1.728).abs() < 1e-15);
    }

    #[test]
    fn a_plateau_decays_once_each_time() {
        let rate = |plateaus| Decay::Plateau { factor: 0.25 }.rate(20.0, Place { plateaus, ..START });
        assert_eq!((rate(0), rate(1), rate(2)), (20.0, 5.0, 1.25));
        assert_eq!(Decay::None.rate(0.5, Place { step: 99, epoch: 9, plateaus: 3, ..START }), 0.5);
    }
}
