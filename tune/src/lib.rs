//! Which weights are best for an ensemble's members, and what each member brings: numbers in, numbers out.
//!
//! Everything begins with what the members gave to the tokens of a held-out text:
//!
//! - [`LogProbs`], one log-probability a token and member: [`learn`] learns the weights of the weighted average by a [`Method`];
//!   [`cross_validate`] says what they are worth on other tokens, [`learn_sets`] what the best weights of every set of members
//!   are that may survive, and [`member_values`] what each member brings (leave one out, Shapley).
//! - [`log_linear::DenseRows`], whole rows: [`log_linear::learn`] learns the exponents of the geometric mixture.
//! - [`vote::Candidates`], the likely tokens: thresholds and weights for the vote, by how often it is right.
//! - Pairs of confidence and outcome: [`Calibration`].
//! - Log-likelihoods of texts under labels: [`calibrate_labels`], how sure of them a member should be.
//!
//! Log-probabilities are natural logarithms, means are in nats a token, a perplexity is exp(-mean). Members and tokens are counted
//! from 0. Weights come in member order, are at least 0 and sum to one; weights that are given need not sum to one. Results
//! have the same bits on any number of threads; chance comes from a seed. Work that takes long tells an [`Observer`] how far it is
//! ([`unobserved`] where nobody wants to know).
//!
//! Knows no wire, no files, no models and no other crate of the workspace.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use chorus_tune::{
//!     BayesOptions, EmOptions, GradientOptions, LogProbs, Method, cross_validate, learn, learn_sets, member_values, unobserved,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What three members gave to the tokens of a text: a row for each token.
//! let rows = (0..300).map(|token| match token % 10 {
//!     0..6 => [0.6_f64.ln(), 0.1_f64.ln(), 0.3_f64.ln()],
//!     6..9 => [0.1_f64.ln(), 0.7_f64.ln(), 0.2_f64.ln()],
//!     _ => [0.01_f64.ln(), 0.02_f64.ln(), 0.03_f64.ln()],
//! });
//! let names = ["alto", "bass", "tenor"].map(str::to_owned).to_vec();
//! let log_probs = LogProbs::new(names, rows)?;
//!
//! // The best weights, exactly, and how sure that is.
//! let learned = learn(&log_probs, &Method::Em(EmOptions::default()), &mut unobserved)?;
//! assert!(learned.perplexity < log_probs.perplexity(&[1.0, 1.0, 1.0])?);
//! assert!(learned.duality_gap < 1e-9);
//!
//! // The other methods, with somebody who looks on and might end it.
//! let mut observer = |progress: &chorus_tune::Progress| {
//!     println!("{} of at most {} passes: {} nats", progress.passes, progress.limit, progress.best);
//!     ControlFlow::Continue(())
//! };
//! for method in [Method::Gradient(GradientOptions::default()), Method::Bayes(BayesOptions::default())] {
//!     let other = learn(&log_probs, &method, &mut observer)?;
//!     assert!(other.perplexity / learned.perplexity < 1.001);
//! }
//!
//! // Five folds: what the weights are worth on tokens that they were not learned from, and how they spread.
//! let validated = cross_validate(&log_probs, &Method::default(), 5, &mut unobserved)?;
//! assert!(validated.perplexity < validated.equal_perplexity);
//! println!("alto {} ± {}", validated.weights[0].mean, validated.weights[0].deviation);
//!
//! // Weights for every set that may survive, what to expect without bass, and what each member brings.
//! let sets = learn_sets(&log_probs, &EmOptions::default(), &mut unobserved)?;
//! let without_bass = sets.without(&[1]).ok_or("a set of two")?;
//! assert!(without_bass.perplexity > learned.perplexity);
//! let values = member_values(&sets, 1000)?;
//! let shares: f64 = values.members.iter().filter_map(|member| member.shapley).sum();
//! assert!((shares - (values.all - values.nobody)).abs() < 1e-9);
//! # Ok(())
//! # }
//! ```

mod bayes;
mod calibration;
mod cross_validation;
mod em;
mod error;
mod gradient;
mod labels;
mod learned;
mod log_probs;
mod method;
mod mixture;
mod objective;
mod sets;
mod simplex;
mod sums;
mod value;

pub mod log_linear;
pub mod synthetic;
pub mod vote;

pub use bayes::BayesOptions;
pub use calibration::{Bins, Calibration, CalibrationError, ReliabilityBin};
pub use cross_validation::{CrossValidation, Fold, Spread, cross_validate};
pub use em::EmOptions;
pub use error::LearnError;
pub use gradient::GradientOptions;
pub use labels::{LabelCalibration, LabelError, calibrate_labels};
pub use learned::{Ended, Learned, Observer, Progress, unobserved};
pub use log_probs::{LogProbs, LogProbsError};
pub use method::{Method, learn};
pub use sets::{ALL_SETS, SetWeights, Sets, learn_sets, surviving_sets};
pub use simplex::{WeightsError, equal_shares, shares};
pub use value::{MemberValue, MemberValues, ValueError, member_values};
