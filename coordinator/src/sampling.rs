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

impl Sampling {
    /// Whether it takes the likeliest token, whatever else it says.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// Whether it draws from the distribution as it is.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The token at `uniform` (in [0, 1)) of the cumulative distribution of what temperature, top-k and top-p leave.
    /// Equal tokens are ordered by id, here and where truncation cuts between them.
    ///
    /// ```
    /// use chorus_coordinator::fusion::{Norm, Row};
    /// use chorus_coordinator::sampling::Sampling;
    ///
    /// let logits = [0.2_f32.ln(), 0.7_f32.ln(), 0.1_f32.ln()];
    /// let norm = Norm { largest: 0.7_f32.ln(), log_sum: -0.7_f64.ln() };
    /// let distribution = Row::new(&logits, norm, 3)?.distribution();
    /// let plain = Sampling::default();
    /// assert_eq!([0.1, 0.3, 0.95].map(|uniform| plain.choose(&distribution, uniform)), [0, 1, 2]);
    /// assert_eq!(Sampling { temperature: 0.0, ..plain }.choose(&distribution, 0.1), 1);
    /// // The nucleus of 0.8 is the tokens 1 and 0, of 0.7 and 0.2.
    /// assert_eq!(Sampling { top_p: 0.8, ..plain }.choose(&distribution, 0.95), 0);
    /// # Ok::<(), chorus_coordinator::fusion::RowError>(())
    /// ```
    pub fn choose(&self, distribution: &Distribution, uniform: f64) -> u32 {
        let likeliest = distribution.argmax();
        if self.is_greedy() {
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
        let most = if self.cuts(distribution) { self.top_k as usize } else { distribution.len() };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fusion::Row;

    fn distribution(logits: &[f32]) -> Distribution {
        Row::new(logits, chorus_simd::norm(logits), logits.len()).unwrap().distribution()
    }

    fn sampling(temperature: f64, top_k: u32, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p }
    }

    /// Everything that any uniform number can choose, by a fine grid over [0, 1).
    fn choices(sampling: Sampling, distribution: &Distribution) -> Vec<u32> {
        let grid = (0..20_000).map(|step| f64::from(step) / 20_000.0);
        let mut ids: Vec<u32> = grid.map(|uniform| sampling.choose(distribution, uniform)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn temperature_0_is_the_likeliest_and_of_equal_ones_the_lowest() {
        let distribution = distribution(&[0.0, 3.0, 1.0, 3.0]);
        assert_eq!(choices(sampling(0.0, 0, 1.0), &distribution), [1]);
        assert_eq!(choices(sampling(1e-300, 0, 1.0), &distribution), [1, 3]);
    }

    #[test]
    fn top_k_keeps_the_k_likeliest_and_of_equal_ones_the_lowest() {
        let distribution = distribution(&[0.0, 2.0, 0.0, 1.0, 0.0]);
        for (top_k, kept) in [
            (1, vec![1]),
            (2, vec![1, 3]),
            (3, vec![0, 1, 3]),
            (5, vec![0, 1, 2, 3, 4]),
            (u32::MAX, vec![0, 1, 2, 3, 4]),
        ] {
            assert_eq!(choices(sampling(1.0, top_k, 1.0), &distribution), kept, "top_k {top_k}");
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let half_quarter_eighths = distribution(&[0.125, 0.5, 0.125, 0.25].map(f32::ln));
        for (top_p, kept) in [
            (1e-9, vec![1]),
            (0.49, vec![1]),
            (0.51, vec![1, 3]),
            (0.76, vec![0, 1, 3]),
            (0.89, vec![0, 1, 2, 3]),
        ] {
            let chosen = choices(sampling(1.0, 0, top_p), &half_quarter_eighths);
            assert_eq!(chosen, kept, "top_p {top_p}");
        }
    }

    #[test]
    fn top_p_counts_what_temperature_and_top_k_leave() {
        let distribution = distribution(&[0.5, 0.3, 0.2].map(f32::ln));
        assert_eq!(choices(sampling(1.0, 0, 0.55), &distribution), [0, 1]);
        // Of the two that are left, the first has 0.625.
        assert_eq!(choices(sampling(1.0, 2, 0.6), &distribution), [0]);
        // Sharpened to 0.66, 0.24, 0.11.
        assert_eq!(choices(sampling(0.5, 0, 0.55), &distribution), [0]);
    }

    #[test]
    fn a_large_nucleus_is_found_as_well_as_a_small_one() {
        let flat = distribution(&[0.0; 5000]);
        let kept = sampling(1.0, 0, 0.5).nucleus(&flat, |l| (l - flat.log_probs()[0]).exp());
        assert_eq!(kept.len(), 2500);
        assert!((0..).zip(&kept).all(|(id, kept)| id == kept.0));
    }

    #[test]
    fn the_uniform_number_follows_from_seed_and_index_alone() {
        let forwards: Vec<f64> = (0..100).map(|index| uniform(7, index)).collect();
        let backwards: Vec<f64> = (0..100).rev().map(|index| uniform(7, index)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert!(forwards.iter().all(|u| (0.0..1.0).contains(u)));
        let mut distinct: Vec<u64> =
            (0..100).flat_map(|index| [uniform(7, index).to_bits(), uniform(8, index).to_bits()]).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 200);
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // Recorded once: a change here changes every text that a seed stands for.
        let recorded = [uniform(0, 0), uniform(0, 1), uniform(u64::MAX, u32::MAX)].map(f64::to_bits);
        assert_eq!(recorded, [4604562003098661703, 4602064919497455152, 4601744338986430034]);
    }

    #[test]
    fn members_draw_as_often_as_their_weights_say() {
        let weights = [2.0, 0.0, 1.0, 5.0];
        let members = || weights.into_iter().enumerate();
        let draws = 20_000;
        let mut counts = [0_u32; 4];
        for index in 0..draws {
            counts[drawing_member(3, index, members()).unwrap()] += 1;
        }
        let expected = weights.map(|weight| weight / 8.0 * f64::from(draws));
        let terms = counts.iter().zip(expected).filter(|(_, expected)| *expected > 0.0);
        let chi_squared: f64 = terms.map(|(count, e)| (f64::from(*count) - e).powi(2) / e).sum();
        // The 99.9th percentile with two degrees of freedom.
        assert!(chi_squared < 13.8, "{counts:?}: {chi_squared}");
        assert_eq!(counts[1], 0);
        let huge = drawing_member(3, 0, members().map(|(member, weight)| (member, weight * 1e307)));
        let tiny = drawing_member(3, 0, members().map(|(member, weight)| (member, weight * 1e-307)));
        assert_eq!((huge, tiny), (drawing_member(3, 0, members()), drawing_member(3, 0, members())));
    }

    #[test]
    fn who_draws_says_nothing_about_what_is_drawn() {
        let members = [(0, 1.0), (1, 1.0)];
        // How often each member draws with a number in each quarter of [0, 1).
        let mut counts = [[0_u32; 4]; 2];
        for index in 0..20_000 {
            let member = drawing_member(5, index, members).unwrap();
            counts[member][(uniform(5, index) * 4.0) as usize] += 1;
        }
        let chi_squared: f64 =
            counts.iter().flatten().map(|count| (f64::from(*count) - 2500.0).powi(2) / 2500.0).sum();
        // The 99.9th percentile with seven degrees of freedom.
        assert!(chi_squared < 24.3, "{counts:?}: {chi_squared}");
    }

    #[test]
    fn draws_have_the_frequencies_of_the_tempered_distribution() {
        let distribution = distribution(&[0.0, 1.0, 2.0, -1.0, 0.5]);
        for (temperature, top_k) in [(1.0, 0), (0.5, 0), (2.0, 3)] {
            let sampling = sampling(temperature, top_k, 1.0);
            let draws = 20_000_u32;
            let mut counts = [0_u32; 5];
            for index in 0..draws {
                counts[sampling.choose(&distribution, uniform(11, index)) as usize] += 1;
            }
            let weights = [0.0, 1.0, 2.0, -1.0, 0.5_f64].map(|z| (z / temperature).exp());
            let kept = |id: usize| top_k == 0 || [1, 2, 4].contains(&id);
            let total: f64 = (0..5).filter(|id| kept(*id)).map(|id| weights[id]).sum();
            let mut chi_square = 0.0;
            for id in 0..5 {
                let expected = if kept(id) { weights[id] / total * f64::from(draws) } else { 0.0 };
                let difference = f64::from(counts[id]) - expected;
                if expected > 0.0 {
                    chi_square += difference * difference / expected;
                } else {
                    assert_eq!(counts[id], 0);
                }
            }
            // 99.9 % of chi-square with 4 degrees of freedom.
            assert!(chi_square < 18.47, "chi-square {chi_square} at {temperature}, top-k {top_k}");
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_the_inverse_of_the_cumulative_distribution(
            logits in prop::collection::vec(-20.0..20.0_f32, 1..200),
            temperature in 0.05..4.0_f64, top_k in 0..220_u32, top_p in 0.01..=1.0_f64, uniform in 0.0..1.0_f64,
        ) {
            let distribution = distribution(&logits);
            let largest = distribution.log_probs().iter().copied().fold(f64::MIN, f64::max);
            let weight = |id: usize| ((distribution.log_probs()[id] - largest) / temperature).exp();
            let mut kept: Vec<usize> = (0..logits.len()).collect();
            let cuts = top_p < 1.0 || (top_k > 0 && (top_k as usize) < logits.len());
            if cuts {
                kept.sort_by(|a, b| distribution.log_probs()[*b].total_cmp(&distribution.log_probs()[*a]));
            }
            if top_k > 0 {
                kept.truncate(top_k as usize);
            }
            if top_p < 1.0 {
                let mass: f64 = kept.iter().map(|id| weight(*id)).sum();
                let mut sum = 0.0;
                let enough = kept.iter().position(|id| { sum += weight(*id); sum >= top_p * mass * (1.0 - 1e-12) });
                kept.truncate(enough.map_or(kept.len(), |last| last + 1));
            }
            let total: f64 = kept.iter().map(|id| weight(*id)).sum();
            let chosen = sampling(temperature, top_k, top_p).choose(&distribution, uniform) as usize;
            let place = kept.iter().position(|id| *id == chosen);
            prop_assert!(place.is_some(), "{chosen} was cut");
            let before: f64 = kept.iter().take(place.unwrap()).map(|id| weight(*id)).sum();
            prop_assert!(before <= uniform * total + 1e-9);
            prop_assert!(before + weight(chosen) >= uniform * total - 1e-9);
        }
    }
}
