//! How the next token is chosen from the fused distribution. Randomness is an argument: one uniform number for each
//! token, which the seed and the token's index determine, so that no retry changes the text. Knows nothing about rules.

mod cut;
mod draw;
mod temper;

#[cfg(test)]
mod tests;

use chorus_simd::mass_above;
use cut::{Cut, Limits, cut};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::fusion::{Distribution, Spare};

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
        Self { temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

/// The uniform number in [0, 1) for the token of this index: 53 bits of the ChaCha8 stream of the seed, read at the
/// index, whatever was read before.
pub fn uniform(seed: u64, index: u32) -> f64 {
    uniform_of_stream(seed, index, 0)
}

/// Which of these members (each with its place in member order and its weight) draws the token of this index, each with a
/// probability that is its share of the weights; none where all weights are 0.
///
/// The members race: each arrives after a time that is exponentially distributed with its weight as the rate, and the first
/// one draws. So the winner among any members follows from the seed, the index and those members alone: a member that is
/// lost leaves the race among the others as it was, whether it is lost before the draw or in it.
///
/// With the token drawn from the winner's own distribution this is a draw from the weighted average, exactly
/// (arXiv:2605.00419).
///
/// ```
/// use chorus_coordinator::sampling::drawing_member;
///
/// let all = [(0, 2.0), (1, 1.0), (2, 1.0)];
/// let winner = drawing_member(7, 0, all).unwrap();
/// let without = |lost: usize| all.into_iter().filter(move |(member, _)| *member != lost);
/// for lost in (0..3).filter(|lost| *lost != winner) {
///     assert_eq!(drawing_member(7, 0, without(lost)), Some(winner));
/// }
/// assert_eq!(drawing_member(7, 0, [(0, 0.0)]), None);
/// ```
pub fn drawing_member(
    seed: u64,
    index: u32,
    members: impl IntoIterator<Item = (usize, f64)>,
) -> Option<usize> {
    let racing = members.into_iter().filter(|(_, weight)| *weight > 0.0);
    let arrivals = racing.map(|(member, weight)| {
        let uniform = uniform_of_stream(seed, index, 1 + member as u64);
        // Logarithms of the times, since a quotient by a tiny weight may be infinite; one minus the number is never 0.
        (member, (-(1.0 - uniform).ln()).ln() - weight.ln())
    });
    // Of equal ones the first.
    arrivals.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(member, _)| member)
}

/// Stream 0 is for tokens, the others for members.
fn uniform_of_stream(seed: u64, index: u32, stream: u64) -> f64 {
    let mut numbers = ChaCha8Rng::seed_from_u64(seed);
    numbers.set_stream(stream);
    // Two words of 32 bits for each token.
    numbers.set_word_pos(u128::from(index) * 2);
    (numbers.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The logarithm of the sum of all probabilities' powers 1 / T, each as a share of the likeliest's: with it
/// log P_T(w) = (log P(w) - log P(likeliest)) / T - this. Gives log P(likeliest), too. The temperature is positive.
pub(crate) fn tempered(distribution: &mut Distribution<'_>, temperature: f64) -> (f64, f64) {
    let (probabilities, Spare { weights, .. }) = distribution.parts();
    let likeliest = probabilities.log_prob(probabilities.argmax());
    temper::weights(&probabilities, temperature, weights);
    // They may be those of f32's exponentials, relative to a likeliest that is not exactly one.
    let largest = weights.iter().copied().fold(0.0_f32, f32::max);
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    (likeliest, (sum / f64::from(largest)).ln())
}

impl Sampling {
    /// Whether it takes the likeliest token, whatever else it says.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// Whether chance has a part in it.
    pub fn draws(&self) -> bool {
        !self.is_greedy() && self.top_k != 1
    }

    /// Whether it draws from the distribution as it is.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The token at `uniform` (in [0, 1)) of the cumulative distribution of what temperature, top-k and top-p leave, in the
    /// order of ids. Where truncation cuts between equal tokens, the lower ids stay.
    ///
    /// The order of the tokens is exact; what they weigh is known to some 1e-6 of it.
    ///
    /// ```
    /// use chorus_coordinator::fusion::{Fused, Fusion, Norm, Row, Scratch, fuse};
    /// use chorus_coordinator::sampling::Sampling;
    ///
    /// let logits = [0.2_f32.ln(), 0.7_f32.ln(), 0.1_f32.ln()];
    /// let norm = Norm { largest: 0.7_f32.ln(), log_sum: -0.7_f64.ln() };
    /// let (rows, scratch) = ([(1.0, Row::new(&logits, norm, 3)?)], &mut Scratch::default());
    /// let fused = fuse(&Fusion::default(), &rows, scratch)?;
    /// let Fused::Distribution(mut distribution) = fused else { unreachable!() };
    /// let plain = Sampling::default();
    /// let draws = [0.1, 0.3, 0.95].map(|uniform| plain.choose(&mut distribution, uniform));
    /// assert_eq!(draws, [0, 1, 2]);
    /// let greedy = Sampling { temperature: 0.0, ..plain };
    /// assert_eq!(greedy.choose(&mut distribution, 0.1), 1);
    /// // The nucleus of 0.8 is the tokens 1 and 0, of 0.7 and 0.2.
    /// assert_eq!(Sampling { top_p: 0.8, ..plain }.choose(&mut distribution, 0.95), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn choose(&self, distribution: &mut Distribution<'_>, uniform: f64) -> u32 {
        if !self.draws() {
            return distribution.argmax();
        }
        let tokens = distribution.len();
        let (probabilities, Spare { weights, sums, edge, kept, .. }) = distribution.parts();
        let weights = if self.temperature == 1.0 {
            probabilities.values()
        } else {
            temper::weights(&probabilities, self.temperature, weights);
            weights
        };
        kept.clear();
        let most = if self.top_k == 0 { tokens } else { (self.top_k as usize).min(tokens) };
        let mut left = Cut { bound: 0.0, mass: f64::INFINITY };
        if most < tokens {
            left = cut(&probabilities, weights, Limits { tokens: most, mass: f64::INFINITY }, edge, kept);
        }
        if self.top_p < 1.0 {
            // A share of what top-k leaves.
            let mass = if most < tokens { left.mass } else { mass_above(weights, 0.0).1 };
            let mass = self.top_p * mass;
            left = cut(&probabilities, weights, Limits { tokens: most, mass }, edge, kept);
        }
        draw::draw(weights, left.bound, kept, uniform, sums).unwrap_or_else(|| probabilities.argmax())
    }
}
