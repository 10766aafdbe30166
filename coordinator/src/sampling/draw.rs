//! Inverse transform sampling from the weights that are left. Knows nothing about why others are not.

use chorus_simd::sums_above;

/// Weights whose sum is kept.
const BLOCK: usize = 128;

/// The first token, in the order of ids, whose cumulative weight exceeds the uniform share of the whole, among those whose
/// weight is above `bound` and those in `kept` (ascending), whose weight is not. `None` where nothing weighs anything.
pub(super) fn draw(
    weights: &[f32],
    bound: f32,
    kept: &[u32],
    uniform: f64,
    sums: &mut Vec<f64>,
) -> Option<u32> {
    sums.resize(weights.len().div_ceil(BLOCK), 0.0);
    sums_above(weights, bound, BLOCK, sums);
    for id in kept {
        let place = *id as usize;
        if let (Some(sum), Some(weight)) = (sums.get_mut(place / BLOCK), weights.get(place)) {
            *sum += f64::from(*weight);
        }
    }
    let place = uniform * sums.iter().sum::<f64>();
    let mut sum = 0.0;
    let mut last = None;
    for (block, (weights, of_block)) in weights.chunks(BLOCK).zip(&*sums).enumerate() {
        if sum + of_block <= place {
            sum += of_block;
            continue;
        }
        let ids = (block * BLOCK..).map_while(|place| u32::try_from(place).ok());
        for (id, weight) in ids.zip(weights).filter(|(_, weight)| **weight > 0.0) {
            if *weight <= bound && kept.binary_search(&id).is_err() {
                continue;
            }
            sum += f64::from(*weight);
            last = Some(id);
            if sum > place {
                return last;
            }
        }
        // The sum of a block is rounded in another order: what it promised may be missing by a last bit.
        if last.is_some() {
            return last;
        }
    }
    last
}
