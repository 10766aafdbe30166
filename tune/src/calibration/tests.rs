//! Calibration errors by hand.

use proptest::prelude::*;

use super::*;

/// Ten predictions: two at 0.15 (none right), four at 0.55 (three right), four at 0.95 (three right).
fn ten() -> Vec<(f64, bool)> {
    let at = |confidence: f64, right: usize, count: usize| {
        (0..count).map(move |index| (confidence, index < right))
    };
    at(0.95, 3, 4).chain(at(0.15, 0, 2)).chain(at(0.55, 3, 4)).collect()
}

#[test]
fn equal_widths_are_as_by_hand() {
    let calibration = Calibration::new(&ten(), Bins::EqualWidth(5)).unwrap();
    let counts: Vec<usize> = calibration.bins.iter().map(|bin| bin.count).collect();
    assert_eq!(counts, [2, 0, 4, 0, 4]);
    let middle = calibration.bins[2];
    assert_eq!((middle.lower, middle.upper, middle.accuracy), (0.4, 0.6, 0.75));
    assert!((middle.confidence - 0.55).abs() < 1e-12);
    // 0.2 * 0.15 + 0.4 * 0.2 + 0.4 * 0.2.
    assert!((calibration.expected_error - 0.19).abs() < 1e-12);
    assert!((calibration.largest_error - 0.2).abs() < 1e-12);
    assert!((calibration.accuracy - 0.6).abs() < 1e-12 && (calibration.confidence - 0.63).abs() < 1e-12);
}

#[test]
fn one_bin_compares_the_means() {
    for bins in [Bins::EqualWidth(1), Bins::EqualMass(1)] {
        let calibration = Calibration::new(&ten(), bins).unwrap();
        assert_eq!(calibration.bins.len(), 1);
        assert!((calibration.expected_error - 0.03).abs() < 1e-12);
    }
}

#[test]
fn equal_masses_are_as_by_hand() {
    let predictions: Vec<(f64, bool)> = (1..=6).map(|tenth| (f64::from(tenth) / 10.0, tenth > 3)).collect();
    let calibration = Calibration::new(&predictions, Bins::EqualMass(3)).unwrap();
    let bins: Vec<(f64, f64, usize, f64)> =
        calibration.bins.iter().map(|bin| (bin.lower, bin.upper, bin.count, bin.accuracy)).collect();
    assert_eq!(bins, [(0.1, 0.2, 2, 0.0), (0.3, 0.4, 2, 0.5), (0.5, 0.6, 2, 1.0)]);
    // (0.15 + 0.15 + 0.45) / 3.
    assert!((calibration.expected_error - 0.25).abs() < 1e-12);
    assert!((calibration.largest_error - 0.45).abs() < 1e-12);
}

#[test]
fn equal_confidences_stay_together() {
    let calibration = Calibration::new(&ten(), Bins::EqualMass(5)).unwrap();
    let counts: Vec<usize> = calibration.bins.iter().map(|bin| bin.count).collect();
    assert_eq!(counts, [2, 4, 4]);
    let same = Calibration::new(&[(0.5, true); 7], Bins::EqualMass(3)).unwrap();
    assert_eq!((same.bins.len(), same.bins[0].count), (1, 7));
}

#[test]
fn the_ends_of_a_bin_belong_as_documented() {
    let predictions = [(0.0, false), (0.5, true), (1.0, true), (1.0 + 5e-10, true)];
    let calibration = Calibration::new(&predictions, Bins::EqualWidth(2)).unwrap();
    assert_eq!((calibration.bins[0].count, calibration.bins[1].count), (2, 2));
    assert_eq!(calibration.bins[1].confidence, 1.0);
}

#[test]
fn what_is_no_prediction_is_refused() {
    let refused =
        |predictions: &[(f64, bool)], bins| Calibration::new(predictions, bins).unwrap_err().to_string();
    assert_eq!(refused(&[], Bins::EqualWidth(10)), "there are no predictions; allowed: at least one");
    assert_eq!(refused(&ten(), Bins::EqualMass(0)), "0 bins; allowed: 1 to 10000");
    assert_eq!(
        refused(&ten(), Bins::EqualWidth(usize::MAX)),
        format!("{} bins; allowed: 1 to 10000", usize::MAX)
    );
    for confidence in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        assert_eq!(
            refused(&[(0.5, true), (confidence, true)], Bins::EqualWidth(10)),
            format!("prediction 1 has the confidence {confidence}; allowed: a number from 0 to 1")
        );
    }
}

proptest! {
    #[test]
    fn every_prediction_is_in_one_bin(
        predictions in prop::collection::vec((0.0..=1.0_f64, any::<bool>()), 1..80), bins in 1_usize..20,
    ) {
        for bins in [Bins::EqualWidth(bins), Bins::EqualMass(bins)] {
            let calibration = Calibration::new(&predictions, bins).unwrap();
            prop_assert_eq!(calibration.bins.iter().map(|bin| bin.count).sum::<usize>(), predictions.len());
            for bin in calibration.bins.iter().filter(|bin| bin.count > 0) {
                prop_assert!(bin.lower <= bin.confidence + 1e-12 && bin.confidence <= bin.upper + 1e-12);
            }
            prop_assert!(calibration.expected_error <= calibration.largest_error + 1e-12);
            // Errors of bins can cancel each other in one bin, and never add.
            prop_assert!(calibration.expected_error >= (calibration.accuracy - calibration.confidence).abs() - 1e-12);
        }
    }
}
