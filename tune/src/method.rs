//! The methods by which weights are learned, behind one name. Decides nothing but which one is called.

use std::fmt;

use crate::bayes::{self, BayesOptions};
use crate::em::{self, EmOptions};
use crate::error::LearnError;
use crate::gradient::{self, GradientOptions};
use crate::learned::{Learned, Observer};
use crate::log_probs::LogProbs;
use crate::mixture::{DifferentiableMixture, Mixture};
use crate::objective::Objective;
use crate::simplex::equal_shares;

/// How weights are learned. All find the same optimum, since there is only one; they differ in what they need for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Expectation-maximisation, for a weighted average: the fastest, exact, never downhill.
    Em(EmOptions),
    /// L-BFGS on softmax-parametrised weights, with gradients from candle's autograd.
    Gradient(GradientOptions),
    /// A Gaussian process and the expected improvement: values only, few of them, near the optimum and not at it.
    Bayes(BayesOptions),
}

impl Default for Method {
    fn default() -> Self {
        Self::Em(EmOptions::default())
    }
}

impl Method {
    /// The method's name in flags and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Em(_) => "em",
            Self::Gradient(_) => "gradient",
            Self::Bayes(_) => "bayes",
        }
    }

    pub(crate) fn check(&self) -> Result<(), LearnError> {
        match self {
            Self::Em(options) => options.check(),
            Self::Gradient(options) => options.check(),
            Self::Bayes(options) => options.check(),
        }
    }

    /// Learns with a method that takes any concave objective.
    pub(crate) fn maximise(
        &self,
        objective: &dyn Objective,
        observer: &mut Observer<'_>,
    ) -> Result<Learned, LearnError> {
        match self {
            Self::Em(_) => Err(LearnError::NotForExponents),
            Self::Gradient(options) => gradient::learn(objective, options, observer),
            Self::Bayes(options) => bayes::learn(objective, options, observer),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Learns the weights of the weighted average P = sum_j a_j P_j under which the tokens are likeliest.
///
/// # Errors
/// An option out of its range, or tensors that can't be computed with. An observer that ends it is no error: the result is what
/// was best by then.
pub fn learn(
    log_probs: &LogProbs,
    method: &Method,
    observer: &mut Observer<'_>,
) -> Result<Learned, LearnError> {
    method.check()?;
    let mixture = Mixture::new(log_probs);
    match method {
        Method::Em(options) => {
            Ok(em::learn(&mixture, options, equal_shares(log_probs.members().len()), observer))
        }
        Method::Gradient(_) | Method::Bayes(_) => {
            method.maximise(&DifferentiableMixture::new(mixture)?, observer)
        }
    }
}
