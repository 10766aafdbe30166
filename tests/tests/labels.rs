//! The calibration of labels as it is learned beside the calibration as it is served: the same probabilities, whatever the
//! numbers. Knows nothing about how it is learned.

use chorus_coordinator::request::Calibration;
use chorus_tune::LabelCalibration;

#[test]
fn the_learned_calibration_is_the_served_calibration() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..1000 {
        let labels = random.usize(2..6);
        let mut numbers =
            |span: f64| -> Vec<f64> { (0..labels).map(|_| span * (random.f64() - 0.5)).collect() };
        let (likelihoods, biases) = (numbers(2000.0), numbers(6.0));
        let scale = 2.0 * random.f64();
        let learned = LabelCalibration { scale, biases: biases.clone() }.log_probs(&likelihoods);
        let served = Calibration { scale, biases }.log_probs(&likelihoods);
        for (learned, served) in learned.iter().zip(&served) {
            assert!((learned - served).abs() < 1e-9, "{learned} {served}");
        }
        let sum: f64 = served.iter().map(|log_prob| log_prob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }
}
