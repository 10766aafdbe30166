//! How the members' next-token distributions become one: the five rules of the ensemble.
//!
//! Knows nothing about who the members are, how their answers came, or what the result is used for. Rows are given in
//! member order, never in the order of arrival, so the same participants give the same bits.

mod arithmetic;
pub mod certificate;
mod distribution;
mod geometric;
mod maximum;
mod row;
mod rule;
mod vote;

#[cfg(test)]
mod tests;

pub use chorus_simd::Norm;
pub use distribution::{Candidate, Distribution};
pub use row::{Row, RowError, check_targets};
pub(crate) use row::{check_norm, check_partial_mass};
pub use rule::{Fusion, Rule, UnknownRule};
pub use vote::{VoteCandidate, Winner};

use crate::weights;

/// What a rule makes of the rows of all participants.
#[derive(Clone, Debug, PartialEq)]
pub enum Fused {
    /// A distribution to draw from: every rule but the vote.
    Distribution(Distribution),
    /// A winner without a distribution: `threshold_vote`.
    Winner(Winner),
}

/// Why rows could not be fused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FuseError {
    /// Nobody answered.
    #[error("no member answered, so there is nothing to fuse")]
    NoParticipants,
    /// Everybody who answered has weight 0, so that shares can't be formed. It is no more the ensemble that was
    /// configured than one below its quorum.
    #[error("every member that answered has weight 0, so their shares are not defined")]
    NoWeight,
    /// Rows or lists of log-probabilities of different lengths.
    #[error("members answered with different lengths: {first} and {other}")]
    Lengths {
        /// Length of the first member's answer.
        first: usize,
        /// The length that differs.
        other: usize,
    },
    /// A row whose norm is not that of its logits: nothing may be made of it.
    #[error("the answer at place {place} is unsound: {error}")]
    Unsound {
        /// Which of the rows.
        place: usize,
        /// What is wrong with it.
        error: RowError,
    },
}

/// Fuses one row of every participant, in member order, each with the member's weight (finite, not negative).
///
/// Weights are renormalised over the rows that are given, so that they sum to one. A member of weight 0 takes part: it
/// adds nothing to a mixture, but `threshold_vote` counts its vote and the rules without weights hear it like any other.
/// One contributing member is passed through to the bit.
///
/// ```
/// use chorus_coordinator::fusion::{Fused, Fusion, Norm, Row, Rule, fuse};
///
/// let fusion = Fusion { rule: Rule::WeightedAverage, threshold: 0.1 };
/// // Logits of 0.9 and 0.1, and of 0.5 and 0.5. The sum of exp(logit - largest) is one over the likeliest's probability.
/// let (sure, unsure) = ([0.9_f32.ln(), 0.1_f32.ln()], [0.0, 0.0]);
/// let of_sure = Norm { largest: 0.9_f32.ln(), log_sum: -0.9_f64.ln() };
/// let of_unsure = Norm { largest: 0.0, log_sum: 2_f64.ln() };
/// let rows = [(3.0, Row::new(&sure, of_sure, 2)?), (1.0, Row::new(&unsure, of_unsure, 2)?)];
/// let Fused::Distribution(fused) = fuse(&fusion, &rows)? else { unreachable!() };
/// assert!((fused.log_probs()[0].exp() - 0.8).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No rows, rows of different lengths, a row whose probabilities do not sum to one, or a rule with weights whose
/// participants all have weight 0.
pub fn fuse(fusion: &Fusion, rows: &[(f64, Row<'_>)]) -> Result<Fused, FuseError> {
    same_length(rows.iter().map(|(_, row)| row.len()))?;
    let weights: Vec<f64> = rows.iter().map(|(weight, _)| *weight).collect();
    let shares = shares(fusion.rule, &weights)?;
    let shared = shares.into_iter().zip(rows).map(|(share, (_, row))| (share, *row));
    let (shared, silent): (Vec<_>, Vec<_>) = shared.enumerate().partition(|(_, (share, _))| *share > 0.0);
    let (places, shared): (Vec<usize>, Vec<(f64, Row<'_>)>) = shared.into_iter().unzip();
    let masses = || shared.iter().map(|(_, row)| row.mass()).collect();
    let (distribution, masses): (_, Vec<f64>) = match (fusion.rule, shared.as_slice()) {
        (_, [(_, only)]) => (only.distribution(), masses()),
        (Rule::WeightedAverage | Rule::ThresholdVote, shared) => arithmetic::mixture(shared),
        (Rule::LogLinear | Rule::LogitMean, shared) => (geometric::mixture(shared), masses()),
        (Rule::LogitMax, shared) => (maximum::softmax_of_maximum(shared), masses()),
    };
    let silent = silent.into_iter().map(|(place, (_, row))| (place, row.mass()));
    for (place, mass) in places.into_iter().zip(masses).chain(silent) {
        row::check_mass(mass).map_err(|error| FuseError::Unsound { place, error })?;
    }
    if fusion.rule != Rule::ThresholdVote {
        return Ok(Fused::Distribution(distribution));
    }
    let voters = rows.iter().map(|(_, row)| *row);
    Ok(Fused::Winner(vote::winner(fusion.threshold, voters, distribution)))
}

/// `weighted_average` of what the members say about the tokens that came: for each member its weight and its
/// log-probability of every token. Gives the log-probability of every token under the mixture, the same numbers as
/// [`fuse`] gives from whole rows.
///
/// ```
/// use chorus_coordinator::fusion::fuse_targets;
///
/// // Two tokens: 0.9 and 0.2 by a member of weight 3, 0.5 and 0.6 by one of weight 1.
/// let (sure, unsure) = ([0.9_f64.ln(), 0.2_f64.ln()], [0.5_f64.ln(), 0.6_f64.ln()]);
/// let fused = fuse_targets(&[(3.0, &sure), (1.0, &unsure)])?;
/// assert!((fused[0].exp() - 0.8).abs() < 1e-12 && (fused[1].exp() - 0.3).abs() < 1e-12);
/// # Ok::<(), chorus_coordinator::fusion::FuseError>(())
/// ```
///
/// # Errors
/// No members, lists of different lengths, or all weights 0.
pub fn fuse_targets(members: &[(f64, &[f64])]) -> Result<Vec<f64>, FuseError> {
    let tokens = same_length(members.iter().map(|(_, log_probs)| log_probs.len()))?;
    let weights: Vec<f64> = members.iter().map(|(weight, _)| *weight).collect();
    let shares = shares(Rule::WeightedAverage, &weights)?;
    let at = |index: usize| {
        let column = shares.iter().zip(members).filter(|(share, _)| **share > 0.0);
        column.filter_map(move |(share, (_, log_probs))| Some((*share, *log_probs.get(index)?)))
    };
    Ok((0..tokens).map(|index| arithmetic::log_of_mixture(&at(index))).collect())
}

/// The shares that members of these weights have in a fused result; they sum to one. Rules without weights give
/// everybody the same.
///
/// # Errors
/// No members, or a rule with weights and every weight is 0.
pub fn shares(rule: Rule, weights: &[f64]) -> Result<Vec<f64>, FuseError> {
    if weights.is_empty() {
        return Err(FuseError::NoParticipants);
    }
    if rule.uses_weights() {
        weights::shares(weights).ok_or(FuseError::NoWeight)
    } else {
        Ok(vec![1.0 / weights.len() as f64; weights.len()])
    }
}

fn same_length(mut lengths: impl Iterator<Item = usize>) -> Result<usize, FuseError> {
    let first = lengths.next().ok_or(FuseError::NoParticipants)?;
    match lengths.find(|length| *length != first) {
        Some(other) => Err(FuseError::Lengths { first, other }),
        None => Ok(first),
    }
}
