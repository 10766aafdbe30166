//! How the members' next-token distributions become one: the five rules of the ensemble.
//!
//! Knows nothing about who the members are, how their answers came, or what the result is used for. Rows are given in
//! member order, never in the order of arrival, so the same participants give the same bits.

mod adjusted;
mod arithmetic;
pub mod certificate;
mod distribution;
mod early;
mod leading;
mod row;
mod rule;
mod scratch;
mod vote;

#[cfg(test)]
mod tests;

pub use adjusted::Adjustment;
pub use certificate::Ahead;
pub use chorus_simd::Norm;
pub use distribution::Distribution;
pub(crate) use distribution::Probabilities;
pub use early::ahead_of;
pub use leading::Candidate;
pub use row::{Row, RowError, check_targets};
pub(crate) use row::{check_norm, check_partial_mass};
pub use rule::{Fusion, Rule, UnknownRule};
pub use scratch::Scratch;
pub(crate) use scratch::Spare;
pub use vote::{VoteCandidate, Winner};

use chorus_simd::Term;

use crate::weights;
use distribution::Exact;

/// What a rule makes of the rows of all participants.
#[derive(Debug)]
pub enum Fused<'a> {
    /// A distribution to draw from: every rule but the vote.
    Distribution(Distribution<'a>),
    /// A winner without a distribution: `threshold_vote`.
    Winner(Winner<'a>),
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

/// Fuses one row of every participant, in member order, each with the member's weight (finite, not negative), in one pass
/// over the rows.
///
/// Weights are renormalised over the rows that are given, so that they sum to one. A member of weight 0 takes part: it
/// adds nothing to a mixture, but `threshold_vote` counts its vote and the rules without weights hear it like any other.
/// One contributing member is passed through to the bit.
///
/// ```
/// use chorus_coordinator::fusion::{Fused, Fusion, Norm, Row, Rule, Scratch, fuse};
///
/// let fusion = Fusion { rule: Rule::WeightedAverage, threshold: 0.1 };
/// // Logits of 0.9 and 0.1, and of 0.5 and 0.5. The sum of exp(logit - largest) is one over the likeliest's probability.
/// let (sure, unsure) = ([0.9_f32.ln(), 0.1_f32.ln()], [0.0, 0.0]);
/// let of_sure = Norm { largest: 0.9_f32.ln(), log_sum: -0.9_f64.ln() };
/// let of_unsure = Norm { largest: 0.0, log_sum: 2_f64.ln() };
/// let rows = [(3.0, Row::new(&sure, of_sure, 2)?), (1.0, Row::new(&unsure, of_unsure, 2)?)];
/// let scratch = &mut Scratch::default();
/// let Fused::Distribution(fused) = fuse(&fusion, &rows, scratch)? else { unreachable!() };
/// assert!((fused.log_prob(0).unwrap().exp() - 0.8).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No rows, rows of different lengths, a row whose probabilities do not sum to one, or a rule with weights whose
/// participants all have weight 0.
pub fn fuse<'a>(
    fusion: &Fusion,
    rows: &'a [(f64, Row<'a>)],
    scratch: &'a mut Scratch,
) -> Result<Fused<'a>, FuseError> {
    let tokens = same_length(rows.iter().map(|(_, row)| row.len()))?;
    let Scratch { shares, factors, sums, values, scores, votes, spare } = scratch;
    share_into(fusion.rule, rows.iter().map(|(weight, _)| *weight), shares)?;
    sums.resize(rows.len(), 0.0);
    values.resize(tokens, 0.0);
    factors.clear();
    // A member that has the whole share is the fused distribution, whatever the rule.
    let is_alone = shares.iter().filter(|share| **share > 0.0).count() == 1;
    let of_scores = !is_alone && !fusion.rule.mixes_probabilities();
    let (exact, largest) = if of_scores {
        factors.extend_from_slice(shares);
        scores.resize(tokens, 0.0);
        // The members' log-sum-exps cancel in the normalisation, so the logits are taken as they are.
        if fusion.rule == Rule::LogitMax {
            chorus_simd::maximum(terms(rows, factors), scores, sums);
        } else {
            chorus_simd::weighted_sum(terms(rows, factors), scores, sums);
        }
        let (largest, sum) = chorus_simd::softmax(scores, values);
        (Exact::Scores { scores, largest, log_sum: sum.ln() }, 1.0)
    } else {
        let shared = shares.iter().zip(rows);
        factors.extend(shared.map(|(share, (_, row))| share * (-row.norm().log_sum).exp()));
        let largest = chorus_simd::mixture(terms(rows, factors), values, sums);
        (Exact::Mixture { rows, shares }, largest)
    };
    for (place, ((_, row), sum)) in rows.iter().zip(sums).enumerate() {
        let mass = *sum * (-row.norm().log_sum).exp();
        row::check_mass(mass).map_err(|error| FuseError::Unsound { place, error })?;
    }
    let distribution = Distribution::new(exact, values, largest, spare);
    if fusion.rule != Rule::ThresholdVote {
        return Ok(Fused::Distribution(distribution));
    }
    votes.resize(tokens, 0);
    Ok(Fused::Winner(vote::winner(fusion.threshold, rows, distribution, votes)))
}

fn terms<'a>(rows: &'a [(f64, Row<'a>)], factors: &'a [f64]) -> impl Iterator<Item = Term<'a>> + Clone + 'a {
    rows.iter().zip(factors).map(|((_, row), factor)| Term {
        values: row.logits(),
        largest: row.norm().largest,
        factor: *factor,
    })
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
    let mut shares = Vec::with_capacity(weights.len());
    share_into(rule, weights.iter().copied(), &mut shares)?;
    Ok(shares)
}

/// [`shares`], written over what stands in `shares`.
fn share_into(
    rule: Rule,
    weights: impl ExactSizeIterator<Item = f64> + Clone,
    shares: &mut Vec<f64>,
) -> Result<(), FuseError> {
    let members = weights.len();
    if members == 0 {
        return Err(FuseError::NoParticipants);
    }
    shares.clear();
    if rule.uses_weights() {
        shares.extend(weights::shares_of(weights).ok_or(FuseError::NoWeight)?);
    } else {
        shares.resize(members, 1.0 / members as f64);
    }
    Ok(())
}

fn same_length(mut lengths: impl Iterator<Item = usize>) -> Result<usize, FuseError> {
    let first = lengths.next().ok_or(FuseError::NoParticipants)?;
    match lengths.find(|length| *length != first) {
        Some(other) => Err(FuseError::Lengths { first, other }),
        None => Ok(first),
    }
}
