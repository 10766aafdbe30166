//! What each member brings to the ensemble. Knows nothing about how the sets' weights were learned.
//!
//! A set's value v(S) is the mean log-probability of the best weighted average of its members, in nats a token; that of
//! nobody is a uniform distribution's, v(∅) = -ln V.

use crate::sets::{ALL_SETS, Sets};

/// What all members bring.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberValues {
    /// The value of all members together, in nats a token.
    pub all: f64,
    /// The value of nobody, -ln V.
    pub nobody: f64,
    /// In member order.
    pub members: Vec<MemberValue>,
}

/// What a member brings.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberValue {
    /// Its name.
    pub name: String,
    /// What is lost without it, v(all) - v(all but it), in nats a token: about 0 for one that others can stand in for.
    pub leave_one_out: f64,
    /// The perplexity of all members.
    pub perplexity_with: f64,
    /// The perplexity of the others, with weights of their own.
    pub perplexity_without: f64,
    /// Its Shapley value: what it adds to those who came before it, in the mean over all orders in which the members could come
    /// (Shapley 1953). They sum to v(all) - v(∅), so each is a share of what the ensemble is worth. `None` beyond 8 members.
    pub shapley: Option<f64>,
}

/// Values that don't exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// A uniform distribution over nothing.
    #[error("a vocabulary of 0 tokens; allowed: at least 1")]
    NoVocabulary,
    /// A value of minus infinity, beside which all others are nothing.
    #[error(
        "{tokens} tokens have probability zero under {}; allowed: tokens that every member gives more (leave the others out)",
        .members.join(", ")
    )]
    Impossible {
        /// A set of members.
        members: Vec<String>,
        /// How many tokens.
        tokens: usize,
    },
    /// Sets of another origin.
    #[error("there are no weights for the members {}; allowed: all sets that may survive", .members.join(", "))]
    MissingSet {
        /// Whose set is not there.
        members: Vec<String>,
    },
}

/// What each member brings, from the sets that [`crate::learn_sets`] has learned and the number of tokens in the vocabulary.
///
/// # Errors
/// No vocabulary; a set that gives a token probability zero; sets that are missing.
pub fn member_values(sets: &Sets, vocab_size: usize) -> Result<MemberValues, ValueError> {
    if vocab_size == 0 {
        return Err(ValueError::NoVocabulary);
    }
    let nobody = -(vocab_size as f64).ln();
    let count = sets.members.len();
    let everybody: Vec<usize> = (0..count).collect();
    let value = |members: &[usize]| if members.is_empty() { Ok(nobody) } else { value(sets, members) };
    let all = value(&everybody)?;
    let shapley = if count <= ALL_SETS { Some(shapley(count, value)?) } else { None };
    let mut members = Vec::with_capacity(count);
    for (member, name) in sets.members.iter().enumerate() {
        let others: Vec<usize> = everybody.iter().copied().filter(|other| *other != member).collect();
        let without = value(&others)?;
        members.push(MemberValue {
            name: name.clone(),
            leave_one_out: all - without,
            perplexity_with: (-all).exp(),
            perplexity_without: (-without).exp(),
            shapley: shapley.as_ref().and_then(|values| values.get(member).copied()),
        });
    }
    Ok(MemberValues { all, nobody, members })
}

/// A set's value, where it has one.
fn value(sets: &Sets, members: &[usize]) -> Result<f64, ValueError> {
    let names = || members.iter().filter_map(|member| sets.members.get(*member).cloned()).collect();
    let Some(set) = sets.of(members) else { return Err(ValueError::MissingSet { members: names() }) };
    if set.impossible_tokens > 0 {
        return Err(ValueError::Impossible { members: names(), tokens: set.impossible_tokens });
    }
    Ok(set.mean_log_prob)
}

/// phi_j = sum over the sets S without j of |S|! (M - |S| - 1)! / M! (v(S and j) - v(S)).
fn shapley(
    count: usize,
    value: impl Fn(&[usize]) -> Result<f64, ValueError>,
) -> Result<Vec<f64>, ValueError> {
    // A set is a number whose bits are its members.
    let members = |set: usize| (0..count).filter(|member| set >> member & 1 == 1).collect::<Vec<usize>>();
    let values = (0..1_usize << count).map(|set| value(&members(set))).collect::<Result<Vec<f64>, _>>()?;
    let share = |size: usize| factorial(size) * factorial(count - size - 1) / factorial(count);
    let of_member = |member: usize| {
        let without = (0..values.len()).filter(|set| set >> member & 1 == 0);
        without.map(|set| share(set.count_ones() as usize) * (values[set | 1 << member] - values[set])).sum()
    };
    Ok((0..count).map(of_member).collect())
}

fn factorial(number: usize) -> f64 {
    (1..=number).map(|factor| factor as f64).product()
}

#[cfg(test)]
mod tests;
