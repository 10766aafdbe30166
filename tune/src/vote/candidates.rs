//! The candidates of every token, and who wins among them. Knows nothing about how thresholds or weights are chosen.

use super::{VoteError, Winner, log_of_mixture, log_threshold, votes};
use crate::simplex::shares;

/// How far above 0 a log-probability may be: what rounding makes of a probability of one.
const ROUNDING: f64 = 1e-9;

/// The candidates of one token and the token that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenCandidates<'a> {
    /// The candidates' ids, in any order.
    pub ids: &'a [u32],
    /// Natural logarithms of probabilities, `[candidates, members]`.
    pub log_probs: &'a [f64],
    /// The token that came. It need not be a candidate; then nobody can be right.
    pub target: u32,
}

/// The candidates of all tokens of a text.
///
/// A vote among candidates is the vote among all tokens if every token stands that some member gives more than the smallest
/// threshold, and the likeliest token of the weighted average.
#[derive(Clone, Debug)]
pub struct Candidates {
    members: usize,
    /// Where the candidates of each token end.
    ends: Vec<usize>,
    ids: Vec<u32>,
    log_probs: Vec<f64>,
    targets: Vec<u32>,
}

impl Candidates {
    /// No tokens yet.
    ///
    /// # Errors
    /// No members.
    pub fn new(members: usize) -> Result<Self, VoteError> {
        if members == 0 {
            return Err(VoteError::NoMembers);
        }
        Ok(Self { members, ends: Vec::new(), ids: Vec::new(), log_probs: Vec::new(), targets: Vec::new() })
    }

    /// Adds the next token.
    ///
    /// # Errors
    /// No candidates, another number of log-probabilities, an id twice, a log-probability that is NaN or above 0 by more than
    /// 1e-9. Nothing is added then.
    pub fn push(&mut self, candidates: TokenCandidates<'_>) -> Result<(), VoteError> {
        let TokenCandidates { ids, log_probs, target } = candidates;
        let (token, members) = (self.targets.len(), self.members);
        if ids.is_empty() {
            return Err(VoteError::NoCandidates { token });
        }
        if ids.len().checked_mul(members) != Some(log_probs.len()) {
            return Err(VoteError::Ragged { token, candidates: ids.len(), given: log_probs.len(), members });
        }
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(VoteError::Twice { token, id: pair[0] });
        }
        if let Some(place) = log_probs.iter().position(|value| value.is_nan() || *value > ROUNDING) {
            let (id, member) = (ids[place / members], place % members);
            return Err(VoteError::Value { token, id, member, value: log_probs[place] });
        }
        self.ids.extend_from_slice(ids);
        self.log_probs.extend_from_slice(log_probs);
        self.ends.push(self.ids.len());
        self.targets.push(target);
        Ok(())
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// A token's candidates; `None` for one that isn't there.
    pub fn token(&self, token: usize) -> Option<TokenCandidates<'_>> {
        let (target, end) = (*self.targets.get(token)?, *self.ends.get(token)?);
        let start = if token == 0 { 0 } else { *self.ends.get(token - 1)? };
        let log_probs = &self.log_probs[start * self.members..end * self.members];
        Some(TokenCandidates { ids: &self.ids[start..end], log_probs, target })
    }

    /// Who wins the vote on a token; `None` for one that isn't there. The weights are scaled to sum to one.
    ///
    /// # Errors
    /// A threshold outside [0, 1), weights that can't be shares.
    pub fn winner(&self, token: usize, threshold: f64, weights: &[f64]) -> Result<Option<Winner>, VoteError> {
        let (log_threshold, shares) = (log_threshold(threshold)?, shares(weights, self.members)?);
        Ok(self.token(token).and_then(|candidates| candidates.winner(log_threshold, &shares)))
    }

    pub(super) fn require_tokens(&self) -> Result<(), VoteError> {
        if self.targets.is_empty() { Err(VoteError::NoTokens) } else { Ok(()) }
    }
}

impl<'a> TokenCandidates<'a> {
    /// Each candidate's id and log-probabilities.
    fn rows(&self) -> impl Iterator<Item = (u32, &'a [f64])> + use<'a> {
        let members = self.log_probs.len() / self.ids.len().max(1);
        self.ids.iter().copied().zip(self.log_probs.chunks_exact(members.max(1)))
    }

    /// Those with the most votes, among whom the weighted average decides, and how many votes these are.
    pub(super) fn leaders(
        &self,
        log_threshold: f64,
    ) -> (usize, impl Iterator<Item = (u32, &'a [f64])> + use<'a>) {
        let most = self.rows().map(|(_, log_probs)| votes(log_probs, log_threshold)).max().unwrap_or(0);
        (most, self.rows().filter(move |(_, log_probs)| votes(log_probs, log_threshold) == most))
    }

    pub(super) fn winner(&self, log_threshold: f64, shares: &[f64]) -> Option<Winner> {
        let (votes, leaders) = self.leaders(log_threshold);
        let standing =
            leaders.map(|(id, log_probs)| Winner { id, votes, log_prob: log_of_mixture(log_probs, shares) });
        standing.max_by(Winner::compare)
    }
}
