//! Texts with a known truth: tokens that were drawn, or counted as expected, from a mixture with known weights. For tests and
//! measurements; knows no method.

use rand_chacha::rand_core::Rng;

use crate::log_probs::{LogProbs, LogProbsError};

/// What members think comes next: `[contexts][members][vocabulary]` probabilities, each row of which sums to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditionals {
    contexts: Vec<Vec<Vec<f64>>>,
}

impl Conditionals {
    /// Rows as they are given.
    pub fn new(contexts: Vec<Vec<Vec<f64>>>) -> Self {
        Self { contexts }
    }

    /// Random rows: powers of exponentially distributed numbers, scaled. The members of a context share a part of their opinion
    /// (`agreement` from 0 to 1), as models of one language do; the larger the `sharpness`, the surer they are.
    pub fn random(
        [contexts, members, vocabulary]: [usize; 3],
        sharpness: f64,
        agreement: f64,
        random: &mut impl Rng,
    ) -> Self {
        let mut opinion = || -> Vec<f64> { (0..vocabulary).map(|_| exponential(random).ln()).collect() };
        let mut context = || {
            let shared = opinion();
            let mut member = || {
                let own = opinion();
                let log =
                    shared.iter().zip(&own).map(|(shared, own)| agreement * shared + (1.0 - agreement) * own);
                let powers: Vec<f64> = log.map(|log| (sharpness * log).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.iter().map(|power| power / sum).collect()
            };
            (0..members).map(|_| member()).collect()
        };
        Self { contexts: (0..contexts).map(|_| context()).collect() }
    }

    /// The rows of a context, one for each member; none for a context that isn't there.
    pub fn rows(&self, context: usize) -> &[Vec<f64>] {
        self.contexts.get(context).map_or(&[], Vec::as_slice)
    }

    /// How many contexts there are.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// The weighted average in a context.
    pub fn mixture(&self, context: usize, weights: &[f64]) -> Vec<f64> {
        let rows = self.rows(context);
        let vocabulary = rows.first().map_or(0, Vec::len);
        let of_id = |id: usize| {
            rows.iter().zip(weights).map(|(row, weight)| weight * row.get(id).unwrap_or(&0.0)).sum()
        };
        (0..vocabulary).map(of_id).collect()
    }

    /// Tokens in random contexts, drawn from the weighted average: `(context, id)` each.
    pub fn draw(&self, weights: &[f64], tokens: usize, random: &mut impl Rng) -> Vec<(usize, usize)> {
        let mixtures: Vec<Vec<f64>> =
            (0..self.contexts()).map(|context| self.mixture(context, weights)).collect();
        let mut token = || {
            let context = (unit(random) * self.contexts() as f64) as usize;
            let mut left = unit(random);
            let mixture = mixtures.get(context).map_or(&[][..], Vec::as_slice);
            let passed = mixture.iter().take_while(|probability| {
                left -= **probability;
                left >= 0.0
            });
            (context, passed.count().min(mixture.len().saturating_sub(1)))
        };
        (0..tokens).map(|_| token()).collect()
    }

    /// Every id of every context as often as the weighted average expects it in `count` tokens of a context, rounded.
    pub fn expect(&self, weights: &[f64], count: usize) -> Vec<(usize, usize)> {
        let in_context = |context: usize| {
            let mixture = self.mixture(context, weights).into_iter().enumerate();
            mixture.flat_map(move |(id, probability)| {
                vec![(context, id); (probability * count as f64).round() as usize]
            })
        };
        (0..self.contexts()).flat_map(in_context).collect()
    }

    /// What the members gave to tokens; they are called m0, m1 and so on.
    ///
    /// # Errors
    /// What [`LogProbs::new`] refuses.
    pub fn log_probs(&self, tokens: &[(usize, usize)]) -> Result<LogProbs, LogProbsError> {
        let members = self.contexts.first().map_or(0, Vec::len);
        let names = (0..members).map(|member| format!("m{member}")).collect();
        let rows = tokens.iter().map(|(context, id)| -> Vec<f64> {
            self.rows(*context).iter().map(|row| row.get(*id).unwrap_or(&0.0).ln()).collect()
        });
        LogProbs::new(names, rows)
    }
}

/// A number from 0 to 1, without 1, evenly drawn.
pub(crate) fn unit(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// An exponentially distributed number with the mean 1, above 0.
pub(crate) fn exponential(random: &mut impl Rng) -> f64 {
    -(1.0 - unit(random)).ln().min(-f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Two contexts of three ids, in which mixtures with tenths as weights are whole hundredths.
    fn tenths() -> Conditionals {
        let context = |rows: [[f64; 3]; 2]| rows.map(Vec::from).to_vec();
        Conditionals::new(vec![
            context([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]),
            context([[0.2, 0.2, 0.6], [0.7, 0.2, 0.1]]),
        ])
    }

    #[test]
    fn expected_tokens_are_counted_as_the_mixture_says() {
        let tokens = tenths().expect(&[0.5, 0.5], 100);
        let count = |token| tokens.iter().filter(|other| **other == token).count();
        let of_context = |context| [count((context, 0)), count((context, 1)), count((context, 2))];
        assert_eq!([of_context(0), of_context(1)], [[30, 20, 50], [45, 20, 35]]);
    }

    #[test]
    fn drawn_tokens_are_as_frequent_as_the_mixture_says() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let drawn = 100_000;
        let tokens = tenths().draw(&[0.5, 0.5], drawn, &mut random);
        for (token, expected) in [((0, 0), 0.15), ((0, 2), 0.25), ((1, 0), 0.225), ((1, 2), 0.175)] {
            let share = tokens.iter().filter(|other| **other == token).count() as f64 / drawn as f64;
            assert!((share - expected).abs() < 5.0 * (expected / drawn as f64).sqrt(), "{token:?} {share}");
        }
    }

    #[test]
    fn random_rows_are_distributions_that_agree_as_far_as_asked() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let distance = |agreement: f64, random: &mut ChaCha8Rng| {
            let rows = Conditionals::random([20, 2, 30], 1.0, agreement, random);
            let of_context = |context: usize| {
                let [one, other] = rows.rows(context) else { panic!("two members") };
                assert!((one.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                one.iter().zip(other).map(|(one, other)| (one - other).abs()).sum::<f64>()
            };
            (0..rows.contexts()).map(of_context).sum::<f64>()
        };
        assert!(distance(0.9, &mut random) < 0.5 * distance(0.0, &mut random));
        assert!(distance(1.0, &mut random) < 1e-12);
    }

    #[test]
    fn what_is_not_there_has_no_probability() {
        let error = tenths().log_probs(&[(0, 1), (9, 0)]).unwrap_err();
        assert!(matches!(error, LogProbsError::Ragged { token: 1, given: 0, .. }), "{error}");
        assert!(matches!(tenths().log_probs(&[(0, 3)]), Err(LogProbsError::Impossible { token: 0, .. })));
        let nothing = Conditionals::new(Vec::new()).draw(&[1.0], 1, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(nothing, [(0, 0)]);
    }
}
