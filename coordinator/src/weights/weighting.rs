//! [`Weighting`]: the weights of a request, which may depend on who takes part and on what the text was so far. Knows nothing
//! about how an answer is fused.

use std::borrow::Cow;
use std::sync::Arc;

use chorus_proto::v1::Expectation;

use super::Weights;
use super::compiled::RuleSets;
use super::posterior::Posterior;

/// Which weights hold when these and those members take part.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighting {
    /// Whoever takes part, but for what was learned.
    fixed: Weights,
    learned: Option<Arc<RuleSets>>,
    /// What the text has shown of the members, where the weights follow it.
    posterior: Option<Posterior>,
}

impl Weighting {
    /// The same, whoever takes part.
    pub fn fixed(weights: Weights) -> Self {
        Self { fixed: weights, learned: None, posterior: None }
    }

    /// Learned ones; `otherwise` where nothing is left of them.
    pub fn learned(sets: Arc<RuleSets>, otherwise: Weights) -> Self {
        Self { fixed: otherwise, learned: Some(sets), posterior: None }
    }

    /// The same, following the text from here on. `forgetting` as in [`Posterior::new`].
    #[must_use]
    pub fn adaptive(self, forgetting: f64) -> Self {
        let posterior = Posterior::new(self.fixed.as_slice().len(), forgetting);
        Self { posterior: Some(posterior), ..self }
    }

    /// Those of all members.
    pub fn whole(&self) -> &Weights {
        self.learned.as_ref().map_or(&self.fixed, |sets| sets.whole())
    }

    /// Those of members whose places are ascending, after what the text has shown of them where the weights follow it.
    pub fn among(&self, participants: &[usize]) -> Cow<'_, Weights> {
        let prior = self.prior(participants);
        match &self.posterior {
            Some(posterior) => Cow::Owned(posterior.weigh(prior, participants)),
            None => Cow::Borrowed(prior),
        }
    }

    /// One more token of the text: each participant's log-probability of it.
    pub fn observe(&mut self, log_probs: &[(usize, f64)]) {
        let Some(mut posterior) = self.posterior.take() else {
            return;
        };
        let participants: Vec<usize> = log_probs.iter().map(|(member, _)| *member).collect();
        posterior.observe(self.prior(&participants), log_probs);
        self.posterior = Some(posterior);
    }

    /// Whether they follow the text.
    pub fn is_adaptive(&self) -> bool {
        self.posterior.is_some()
    }

    fn prior(&self, participants: &[usize]) -> &Weights {
        self.learned.as_ref().and_then(|sets| sets.among(participants)).unwrap_or(&self.fixed)
    }

    /// Whether a member that is missing changes the proportion of the others' weights.
    pub fn depends_on_participants(&self) -> bool {
        self.learned.is_some()
    }

    /// What is expected of these members, where something was learned.
    pub fn expectation(&self, participants: &[usize]) -> Option<Expectation> {
        self.learned.as_ref()?.expectation(participants)
    }
}
