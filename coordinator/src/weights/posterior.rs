//! [`Posterior`]: what the tokens of a text have shown of the members that predicted them. Pure; knows nothing about rules or
//! about where log-probabilities come from.

use super::Weights;

/// The evidence for each member, with forgetting: e_j becomes λ e_j + ln P_j(token) with every token. The weights that follow
/// from it are proportional to w_j exp(e_j), where w_j are those before any token. With λ = 1 that is Bayes' rule, the posterior
/// probability that member j alone wrote the text; with λ < 1 it is the forgetting of Raftery, Kárný and Ettler (2010, "Online
/// prediction under model uncertainty via dynamic model averaging", eq. 16), in which what was seen k tokens ago counts λ^k
/// times, here towards w_j instead of towards equal weights.
///
/// A member that is missing from a token is a specialist that sleeps (Freund, Schapire, Singer and Warmuth 1997): it is taken
/// to have said what the others said together, so that its share stays as it is among them.
///
/// ```
/// use chorus_coordinator::weights::{Posterior, Weights};
///
/// let equal = Weights::equal(2);
/// let mut posterior = Posterior::new(2, 1.0);
/// posterior.observe(&equal, &[(0, 0.6_f64.ln()), (1, 0.2_f64.ln())]);
/// let weights = posterior.weigh(&equal, &[0, 1]);
/// assert!((weights.of(0) / weights.of(1) - 3.0).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    forgetting: f64,
    /// In nats, by member.
    evidence: Vec<f64>,
}

/// A member that gave a token the probability zero can't be right for ever, where something is forgotten. So much below the
/// best, it has no weight that f64 would notice, and its way back has an end.
const LEAST_EVIDENCE: f64 = -600.0;

impl Posterior {
    /// Before any token. `forgetting` is λ, in (0, 1].
    pub fn new(members: usize, forgetting: f64) -> Self {
        Self { forgetting, evidence: vec![0.0; members] }
    }

    /// One more token of the text: each participant's log-probability of it. `prior` are the weights that hold for them before
    /// any token.
    pub fn observe(&mut self, prior: &Weights, log_probs: &[(usize, f64)]) {
        let participants: Vec<usize> = log_probs.iter().map(|(member, _)| *member).collect();
        let said_together = self.log_of_mixture(&self.weigh(prior, &participants), log_probs);
        let mut said = log_probs.iter().peekable();
        for (member, evidence) in self.evidence.iter_mut().enumerate() {
            let log_prob = said.next_if(|(participant, _)| *participant == member);
            let log_prob = log_prob.map_or(said_together, |(_, log_prob)| *log_prob);
            // What all of them held impossible says nothing of any of them.
            if said_together.is_finite() {
                *evidence = self.forgetting * *evidence + log_prob;
            }
        }
        // Only differences count.
        let largest = self.evidence.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for evidence in &mut self.evidence {
            *evidence = (*evidence - largest).max(LEAST_EVIDENCE);
        }
    }

    /// The weights of these members after what was seen, where `prior` would hold before any token.
    pub fn weigh(&self, prior: &Weights, participants: &[usize]) -> Weights {
        let of = |member: &usize| self.evidence.get(*member).copied().unwrap_or(0.0);
        // The evidence of members without a weight must not make the others' vanish.
        let weighty = participants.iter().filter(|member| prior.of(**member) > 0.0);
        let largest = weighty.map(of).fold(f64::NEG_INFINITY, f64::max);
        let mut by_member = vec![0.0; self.evidence.len()];
        for member in participants {
            if let Some(weight) = by_member.get_mut(*member) {
                *weight = prior.of(*member) * (of(member) - largest).min(0.0).exp();
            }
        }
        Weights { by_member }
    }

    fn log_of_mixture(&self, weights: &Weights, log_probs: &[(usize, f64)]) -> f64 {
        let of_all: Vec<f64> = log_probs.iter().map(|(member, _)| weights.of(*member)).collect();
        let Some(shares) = super::shares(&of_all) else {
            return f64::NEG_INFINITY;
        };
        let largest = log_probs.iter().map(|(_, log_prob)| *log_prob).fold(f64::NEG_INFINITY, f64::max);
        if !largest.is_finite() {
            return f64::NEG_INFINITY;
        }
        let terms = shares.iter().zip(log_probs);
        largest + terms.map(|(share, (_, log_prob))| share * (log_prob - largest).exp()).sum::<f64>().ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bayes' rule as it is written in books: the prior times the product of the likelihoods, normalised.
    fn by_the_book(prior: &[f64], tokens: &[Vec<f64>]) -> Vec<f64> {
        let joint: Vec<f64> = prior
            .iter()
            .enumerate()
            .map(|(member, prior)| prior * tokens.iter().map(|token| token[member]).product::<f64>())
            .collect();
        let evidence: f64 = joint.iter().sum();
        joint.iter().map(|joint| joint / evidence).collect()
    }

    fn observed(posterior: &mut Posterior, prior: &Weights, token: &[f64]) {
        let said: Vec<(usize, f64)> = token.iter().map(|probability| probability.ln()).enumerate().collect();
        posterior.observe(prior, &said);
    }

    fn weights(values: &[f64]) -> Weights {
        Weights { by_member: values.to_vec() }
    }

    proptest! {
        #[test]
        fn without_forgetting_it_is_bayes_rule(
            prior in prop::collection::vec(0.01..1.0_f64, 3),
            tokens in prop::collection::vec(prop::collection::vec(0.01..1.0_f64, 3), 0..20),
        ) {
            let prior_weights = weights(&prior);
            let mut posterior = Posterior::new(3, 1.0);
            for token in &tokens {
                observed(&mut posterior, &prior_weights, token);
            }
            let found = super::super::shares(posterior.weigh(&prior_weights, &[0, 1, 2]).as_slice()).unwrap();
            for (found, expected) in found.iter().zip(by_the_book(&prior, &tokens)) {
                prop_assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        }

        #[test]
        fn with_forgetting_old_tokens_count_powers_of_it(
            forgetting in 0.1..1.0_f64,
            tokens in prop::collection::vec(prop::collection::vec(0.01..1.0_f64, 2), 1..20),
        ) {
            let prior = Weights::equal(2);
            let mut posterior = Posterior::new(2, forgetting);
            for token in &tokens {
                observed(&mut posterior, &prior, token);
            }
            let ages = (0..tokens.len()).rev().map(|age| forgetting.powi(i32::try_from(age).unwrap()));
            let log_odds: f64 = tokens.iter().zip(ages).map(|(token, power)| power * (token[0] / token[1]).ln()).sum();
            let found = posterior.weigh(&prior, &[0, 1]);
            prop_assert!(((found.of(0) / found.of(1)).ln() - log_odds).abs() < 1e-6);
        }
    }

    #[test]
    fn who_is_missing_keeps_its_share_among_the_others() {
        let prior = weights(&[0.5, 0.3, 0.2]);
        let mut posterior = Posterior::new(3, 1.0);
        posterior.observe(&prior, &[(0, 0.9_f64.ln()), (2, 0.1_f64.ln())]);
        let after = super::super::shares(posterior.weigh(&prior, &[0, 1, 2]).as_slice()).unwrap();
        assert!((after[1] - 0.3).abs() < 1e-12, "{after:?}");
        assert!((after[0] / after[2] - 2.5 * 9.0).abs() < 1e-9, "{after:?}");
    }

    #[test]
    fn impossible_tokens_leave_numbers_that_can_be_used() {
        let prior = weights(&[0.5, 0.5, 0.0]);
        let mut posterior = Posterior::new(3, 0.5);
        posterior.observe(&prior, &[(0, 0.0), (1, f64::NEG_INFINITY), (2, f64::NEG_INFINITY)]);
        let sure = posterior.weigh(&prior, &[0, 1, 2]);
        assert!(sure.of(0) > 0.0 && sure.of(1) < 1e-200 && sure.of(2) == 0.0, "{sure:?}");
        let before = posterior.clone();
        posterior.observe(&prior, &[(0, f64::NEG_INFINITY), (1, f64::NEG_INFINITY)]);
        assert_eq!(posterior, before, "nobody is at fault");
        for _ in 0..30 {
            observed(&mut posterior, &prior, &[0.1, 0.2, 0.3]);
        }
        let back = posterior.weigh(&prior, &[0, 1, 2]);
        assert!(back.of(1) > back.of(0), "{back:?}");
        // Those who take part may have been the worst.
        assert!(posterior.weigh(&prior, &[0]).of(0) > 0.0);
    }
}
