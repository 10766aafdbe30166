//! What tokens weigh at a temperature: P^(1/T), relative to the likeliest. Knows nothing about truncation.

use chorus_simd::{for_each_within, power};

use crate::fusion::Probabilities;

/// Below this temperature an error of f32 in a probability would be one that counts in its power, and few tokens weigh
/// anything: those are weighed in f64.
const COLD: f64 = 0.3;

/// Above this temperature tokens count whose probabilities f32 does not hold: those are weighed in f64. Below it they weigh
/// less than 1e-11 of the likeliest.
const HOT: f64 = 2.5;

/// Writes the weight of every token: exp((log P - log P of the likeliest) / T). The temperature is positive.
pub(super) fn weights(probabilities: &Probabilities<'_>, temperature: f64, weights: &mut Vec<f32>) {
    let (values, largest) = (probabilities.values(), probabilities.largest());
    weights.clear();
    let likeliest = || probabilities.log_prob(probabilities.argmax());
    if temperature < COLD {
        weights.resize(values.len(), 0.0);
        let likeliest = likeliest();
        // Whatever is less likely weighs nothing that f32 holds.
        let least = largest * ((-100.0 * temperature).exp() as f32) * (1.0 - probabilities.margin());
        for_each_within(values, least, f32::INFINITY, |place, _| {
            weigh(probabilities, place, likeliest, temperature, weights);
        });
        return;
    }
    weights.extend_from_slice(values);
    power(weights, largest, (1.0 / temperature) as f32, Probabilities::LEAST_VALUE);
    if temperature > HOT {
        let likeliest = likeliest();
        for_each_within(values, 0.0, Probabilities::LEAST_VALUE.next_down(), |place, _| {
            weigh(probabilities, place, likeliest, temperature, weights);
        });
    }
}

/// Writes one token's weight, of its exact log-probability.
fn weigh(
    probabilities: &Probabilities<'_>,
    place: usize,
    likeliest: f64,
    temperature: f64,
    weights: &mut [f32],
) {
    let log_prob = probabilities.log_prob(u32::try_from(place).unwrap_or(u32::MAX));
    if let Some(weight) = weights.get_mut(place) {
        *weight = ((log_prob - likeliest) / temperature).exp() as f32;
    }
}
