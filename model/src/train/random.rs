//! Every random number of a training run, as a function of the seed, what it is for, and a position.
//! No generator lives from step to step, so a checkpoint needs no generator's state: the step number is enough.
//! Knows nothing about tensors.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What random numbers are drawn for; each purpose has streams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The initial weights; the position is the tensor's place in the list of parameters.
    InitialWeights = 0,
    /// The dropout masks; the position is the step.
    Dropout = 1,
    /// The order of the passages; the position is the epoch.
    Order = 2,
}

/// The generator for one purpose at one position. ChaCha has 2^64 streams a seed: the upper byte is the purpose.
pub(crate) fn generator(seed: u64, purpose: Purpose, position: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(((purpose as u64) << 56) | (position & ((1 << 56) - 1)));
    generator
}

/// A uniform number in [0, 1) with 24 random bits: every such `f32` is exact.
pub(crate) fn uniform(generator: &mut ChaCha8Rng) -> f32 {
    (generator.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// A uniform number below `bound`, without the bias of a remainder (the high half of a 64-bit product).
fn below(generator: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(generator.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Fisher and Yates' shuffle. Our own eight lines, since a library's may change its draws with a version,
/// and the same seed has to give the same order then too.
pub(crate) fn shuffle<T>(items: &mut [T], generator: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let other = below(generator, last as u64 + 1) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_gives_the_same_numbers_and_other_places_others() {
        let draw = |seed, purpose, position| uniform(&mut generator(seed, purpose, position));
        assert_eq!(draw(1, Purpose::Dropout, 5), draw(1, Purpose::Dropout, 5));
        assert_ne!(draw(1, Purpose::Dropout, 5), draw(2, Purpose::Dropout, 5));
        assert_ne!(draw(1, Purpose::Dropout, 5), draw(1, Purpose::Dropout, 6));
        assert_ne!(draw(1, Purpose::Dropout, 5), draw(1, Purpose::Order, 5));
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(&mut items, &mut generator(3, Purpose::Order, 0));
        assert_ne!(items, (0..1000).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
