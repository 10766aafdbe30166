//! How the next token is chosen from the fused distribution. Randomness is an argument: one uniform number for each
//! token, which the seed and the token's index determine, so that no retry changes the text. Knows nothing about rules.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::fusion::Distribution;

/// Temperature, then top-k, then top-p, in the order in which they act.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Log-probabilities are divided by it; 0 takes the likeliest token. Finite, at least 0.
    pub temperature: f64,
    /// Only the k likeliest tokens; 0 is all.
    pub top_k: u32,
    /// Of those, only the likeliest that together reach this share of their probability (the nucleus of Holtzman et al.
    /// 2020, arXiv:1904.09751). In (0, 1]; 1 is all.
    pub top_p: f64,
}

impl Default for Sampling {
    /// The distribution as it is.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}

/// The uniform number in [0, 1) for the token of this index: 53 bits of the ChaCha8 stream of the seed, read at the
/// index, whatever was read before.
pub fn uniform(seed: u64, index: u32) -> f64 {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    // Two words of 32 bits for each token.
    stream.set_word_pos(u128::from(index) * 2);
    (stream.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

impl Sampling {
    /// The token at `uniform` (in [0, 1)) of the cumulative distribution of what temperature, top-k and top-p leave.
    /// Equal tokens are ordered by id, here and where truncation cuts between them.
    pub fn choose(&self, distribution: &Distribution, uniform: f64) -> u32 {
        let likeliest = distribution.argmax();
        if self.temperature <= 0.0 {
            return likeliest;
        }
        let largest = distribution.log_prob(likeliest).unwrap_or(0.0);
        let weight = |log_prob: f64| ((log_prob - largest) / self.temperature).exp();
        if self.top_p >= 1.0 && !self.cuts(distribution) {
            let weights = (0..).zip(distribution.log_probs().iter().map(|l| weight(*l)));
            return draw(weights, uniform).unwrap_or(likeliest);
        }
        let kept = self.nucleus(distribution, weight);
        draw(kept.into_iter(), uniform).unwrap_or(likeliest)
    }

    fn cuts(&self, distribution: &Distribution) -> bool {
        self.top_k > 0 && (self.top_k as usize) < distribution.len()
    }

    /// The tokens that truncation leaves, likeliest first, with their weights. Sorts no more than a few times what it
    /// keeps, since a nucleus is usually small.
    fn nucleus(&self, distribution: &Distribution, weight: impl Fn(f64) -> f64) -> Vec<(u32, f64)> {
        let most = if self.cuts(distribution) {
            self.top_k as usize
        } else {
            distribution.len()
        };
        let leading = |n: usize| -> Vec<(u32, f64)> {
            let top = distribution.top(n);
            top.iter().map(|c| (c.id, weight(c.log_prob))).collect()
        };
        if self.top_p >= 1.0 {
            return leading(most);
        }
        let mass: f64 = if self.cuts(distribution) {
            leading(most).iter().map(|(_, weight)| weight).sum()
        } else {
            distribution.log_probs().iter().map(|l| weight(*l)).sum()
        };
        let mut size = most.min(64);
        loop {
            let mut kept = leading(size);
            if let Some(enough) = reach(&kept, self.top_p * mass) {
                kept.truncate(enough);
                return kept;
            }
            if size == most {
                return kept;
            }
            size = most.min(size * 8);
        }
    }
}

/// How many of these it takes to reach the mass.
fn reach(ordered: &[(u32, f64)], mass: f64) -> Option<usize> {
    let mut sum = 0.0;
    let last = ordered.iter().position(|(_, weight)| {
        sum += weight;
        sum >= mass
    });
    last.map(|last| last + 1)
}

/// Inverse transform sampling: the first token whose cumulative weight exceeds the uniform share of the whole.
fn draw(weights: impl Iterator<Item = (u32, f64)> + Clone, uniform: f64) -> Option<u32> {
    let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    weights
        .map(|(id, weight)| {
            sum += weight;
            (id, sum)
        })
        .find(|(_, sum)| *sum > uniform * total)
        .map(|(id, _)| id)
}
