//! The log-probabilities of a text's tokens, member by member: checked once, then cut into parts without copies where that
//! is possible. Knows nothing about where they come from or how weights are learned.

mod perplexity;

use std::ops::Range;
use std::sync::Arc;

/// How far above 0 a log-probability may be: what rounding makes of a probability of one.
const ROUNDING: f64 = 1e-9;

/// Natural logarithms of the probabilities that each member gave to each token of a text: `[tokens, members]`.
///
/// A number may be minus infinity (probability zero), but not every member's for the same token. Copies and parts share the
/// numbers.
#[derive(Clone, Debug)]
pub struct LogProbs {
    members: Vec<String>,
    /// A column for each member, of which `tokens` are meant.
    columns: Vec<Arc<[f64]>>,
    tokens: Range<usize>,
}

/// A matrix that nothing can be learned from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LogProbsError {
    /// Nobody.
    #[error("there are no members; allowed: at least one")]
    NoMembers,
    /// Two members can't be told apart.
    #[error("two members are called {name:?}; allowed: a name for each member")]
    SameName {
        /// Their name.
        name: String,
    },
    /// Nothing was predicted.
    #[error("there are no tokens; allowed: log-probabilities of at least one token")]
    NoTokens,
    /// A row of another length than there are members.
    #[error("token {token} has {given} log-probabilities; allowed: one for each of the {members} members")]
    Ragged {
        /// Which token, from 0.
        token: usize,
        /// How many numbers it has.
        given: usize,
        /// How many members there are.
        members: usize,
    },
    /// NaN, or the logarithm of no probability.
    #[error(
        "member {member:?} gives token {token} the log-probability {value}; allowed: a number of at most 0, or -inf"
    )]
    Value {
        /// Which token, from 0.
        token: usize,
        /// Whose number.
        member: String,
        /// The number.
        value: f64,
    },
    /// No weights could make the text possible.
    #[error("token {token} has probability zero under {}; allowed: at least one member that gives it more", .members.join(", "))]
    Impossible {
        /// Which token, from 0.
        token: usize,
        /// All members.
        members: Vec<String>,
    },
    /// A place that is nobody's.
    #[error("there is no member {member}; allowed: 0 to {last}, each once")]
    UnknownMember {
        /// What was given.
        member: usize,
        /// The place of the last member.
        last: usize,
    },
    /// Tokens that aren't there.
    #[error("there are no tokens {} to {}; allowed: a part of 0 to {tokens}", .range.start, .range.end)]
    UnknownTokens {
        /// What was given.
        range: Range<usize>,
        /// How many tokens there are.
        tokens: usize,
    },
}

impl LogProbs {
    /// Checks rows, one for each token, with a number for each member in member order.
    ///
    /// # Errors
    /// No members or two of the same name; no tokens; a row of another length; a number that is NaN or above 0 by more than
    /// 1e-9; a token with probability zero under every member.
    pub fn new<R: AsRef<[f64]>>(
        members: Vec<String>,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Self, LogProbsError> {
        let all = Self::checked(members, rows)?;
        all.require_possible()?;
        Ok(all)
    }

    /// The same, without the tokens that have probability zero under every member; which ones, counted from 0 in the rows.
    ///
    /// # Errors
    /// What [`LogProbs::new`] refuses; no tokens but such ones.
    pub fn without_impossible_tokens<R: AsRef<[f64]>>(
        members: Vec<String>,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<(Self, Vec<usize>), LogProbsError> {
        let all = Self::checked(members, rows)?;
        all.without_tokens_where(|token| all.at(token).all(|log_prob| log_prob == f64::NEG_INFINITY))
    }

    /// The tokens that no member gives probability zero; and which ones those are that are left out. Every mixture of any of the
    /// members then has a finite perplexity, as [`crate::member_values`] needs it.
    ///
    /// # Errors
    /// No tokens but such ones.
    pub fn possible_for_every_member(&self) -> Result<(Self, Vec<usize>), LogProbsError> {
        self.without_tokens_where(|token| self.at(token).any(|log_prob| log_prob == f64::NEG_INFINITY))
    }

    fn checked<R: AsRef<[f64]>>(
        members: Vec<String>,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Self, LogProbsError> {
        if members.is_empty() {
            return Err(LogProbsError::NoMembers);
        }
        if let Some(place) = (1..members.len()).find(|place| members[..*place].contains(&members[*place])) {
            return Err(LogProbsError::SameName { name: members[place].clone() });
        }
        let mut columns = vec![Vec::new(); members.len()];
        for (token, row) in rows.into_iter().enumerate() {
            let row = row.as_ref();
            if row.len() != members.len() {
                return Err(LogProbsError::Ragged { token, given: row.len(), members: members.len() });
            }
            for ((column, member), &value) in columns.iter_mut().zip(&members).zip(row) {
                if value.is_nan() || value > ROUNDING {
                    return Err(LogProbsError::Value { token, member: member.clone(), value });
                }
                column.push(value.min(0.0));
            }
        }
        let tokens = columns.first().map_or(0, Vec::len);
        if tokens == 0 {
            return Err(LogProbsError::NoTokens);
        }
        Ok(Self { members, columns: columns.into_iter().map(Arc::from).collect(), tokens: 0..tokens })
    }

    fn require_possible(&self) -> Result<(), LogProbsError> {
        match self.impossible_tokens().next() {
            Some(token) => Err(LogProbsError::Impossible { token, members: self.members.clone() }),
            None => Ok(()),
        }
    }

    /// Tokens with probability zero under every member.
    pub(crate) fn impossible_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens()).filter(|token| self.at(*token).all(|log_prob| log_prob == f64::NEG_INFINITY))
    }

    fn without_tokens_where(
        &self,
        is_left_out: impl Fn(usize) -> bool,
    ) -> Result<(Self, Vec<usize>), LogProbsError> {
        let (left_out, kept): (Vec<usize>, Vec<usize>) =
            (0..self.tokens()).partition(|token| is_left_out(*token));
        if left_out.is_empty() {
            return Ok((self.clone(), left_out));
        }
        Ok((self.only_tokens(&kept)?, left_out))
    }

    fn only_tokens(&self, tokens: &[usize]) -> Result<Self, LogProbsError> {
        if tokens.is_empty() {
            return Err(LogProbsError::NoTokens);
        }
        let column = |member| tokens.iter().map(|token| self.column(member)[*token]).collect();
        let columns = (0..self.members.len()).map(column).collect();
        Ok(Self { members: self.members.clone(), columns, tokens: 0..tokens.len() })
    }

    /// The members' names, in member order.
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// How many tokens there are, at least 1.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// A member's log-probabilities, token by token; nothing for a place that is nobody's.
    pub fn column(&self, member: usize) -> &[f64] {
        self.columns.get(member).and_then(|column| column.get(self.tokens.clone())).unwrap_or(&[])
    }

    /// A token's log-probabilities, member by member.
    fn at(&self, token: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.members.len()).filter_map(move |member| self.column(member).get(token).copied())
    }

    /// Some members (places in member order, rising or not, each once), without a copy of the numbers.
    ///
    /// # Errors
    /// No members, an unknown one or one twice; a token that has probability zero under all of these.
    pub fn select_members(&self, members: &[usize]) -> Result<Self, LogProbsError> {
        let some = self.select_members_unchecked(members)?;
        some.require_possible()?;
        Ok(some)
    }

    /// The same where tokens may have probability zero under all of these members.
    pub(crate) fn select_members_unchecked(&self, members: &[usize]) -> Result<Self, LogProbsError> {
        if members.is_empty() {
            return Err(LogProbsError::NoMembers);
        }
        let last = self.members.len() - 1;
        let mut some = Self { members: Vec::new(), columns: Vec::new(), tokens: self.tokens.clone() };
        for (place, &member) in members.iter().enumerate() {
            if member > last || members[..place].contains(&member) {
                return Err(LogProbsError::UnknownMember { member, last });
            }
            some.members.push(self.members[member].clone());
            some.columns.push(Arc::clone(&self.columns[member]));
        }
        Ok(some)
    }

    /// Tokens that follow on each other, without a copy of the numbers.
    ///
    /// # Errors
    /// No tokens, or some that aren't there.
    pub fn select_tokens(&self, range: Range<usize>) -> Result<Self, LogProbsError> {
        self.require_tokens(&range)?;
        if range.is_empty() {
            return Err(LogProbsError::NoTokens);
        }
        let tokens = self.tokens.start + range.start..self.tokens.start + range.end;
        Ok(Self { members: self.members.clone(), columns: self.columns.clone(), tokens })
    }

    /// All tokens but some that follow on each other: a copy where tokens on both sides are left.
    ///
    /// # Errors
    /// No token is left, or some of the range aren't there.
    pub fn without_tokens(&self, range: Range<usize>) -> Result<Self, LogProbsError> {
        self.require_tokens(&range)?;
        if range.is_empty() {
            return Ok(self.clone());
        }
        if range.start == 0 {
            return self.select_tokens(range.end..self.tokens());
        }
        if range.end == self.tokens() {
            return self.select_tokens(0..range.start);
        }
        let columns = (0..self.members.len()).map(|member| {
            let column = self.column(member);
            column[..range.start].iter().chain(&column[range.end..]).copied().collect()
        });
        let tokens = 0..self.tokens() - range.len();
        Ok(Self { members: self.members.clone(), columns: columns.collect(), tokens })
    }

    fn require_tokens(&self, range: &Range<usize>) -> Result<(), LogProbsError> {
        if range.start > range.end || range.end > self.tokens() {
            return Err(LogProbsError::UnknownTokens { range: range.clone(), tokens: self.tokens() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
