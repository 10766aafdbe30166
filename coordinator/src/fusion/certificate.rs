//! Who leads under `weighted_average` or `threshold_vote`, proved from the likeliest tokens of every member: the threshold
//! algorithm of Fagin, Lotem and Naor (2003, "Optimal aggregation algorithms for middleware") with lower and upper bounds.
//!
//! A member's likeliest tokens are exact; whatever it does not name is no likelier than the last that it names. So every
//! token's mixture lies between two sums. Where they decide, the verdict is that of whole rows, to the bit; where they do
//! not, the verdict says what is missing. Knows nothing about how members are asked.

use std::cmp::Ordering;

use super::{Candidate, FuseError, Norm, RowError, Rule, VoteCandidate, arithmetic::log_of_mixture, shares};
use crate::tops::{Top, check_logit};

/// Bounds are sums of rounded numbers, and so are the exact values: a token is below another where it is by more than
/// this share. What is nearer is decided by exact values.
const ROUNDING: f64 = 1e-9;

/// What one member has said about one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    norm: Norm,
    /// Ascending ids with their log-probabilities.
    known: Vec<(u32, f64)>,
    /// The log-probability that no other token exceeds.
    bound: f64,
}

/// What is to be proved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contest {
    /// The logarithm of the vote's threshold; none without a vote.
    pub log_threshold: Option<f64>,
    /// Which places.
    pub places: Places,
    /// Tokens of the vocabulary.
    pub vocabulary_size: usize,
}

/// The places that are to be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// The first, whatever its probability is.
    Winner,
    /// The first so many, in order and with their probabilities.
    Leaders(usize),
}

/// A token that has its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leader {
    /// The token.
    pub id: u32,
    /// How many participants gave it more than the threshold; 0 without a vote.
    pub votes: u32,
    /// Its log-probability under the weighted average; known of all [`Places::Leaders`].
    pub log_prob: Option<f64>,
}

impl From<Candidate> for Leader {
    fn from(candidate: Candidate) -> Self {
        Self { id: candidate.id, votes: 0, log_prob: Some(candidate.log_prob) }
    }
}

impl From<VoteCandidate> for Leader {
    fn from(candidate: VoteCandidate) -> Self {
        Self { id: candidate.id, votes: candidate.votes, log_prob: Some(candidate.log_prob) }
    }
}

/// By how much the first token leads, at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// Its probability under the weighted average beyond that of any other token.
    Probability(f64),
    /// Its votes beyond those of any other token.
    Votes(u32),
}

/// Who leads, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead {
    /// The first token.
    pub id: u32,
    /// How far it is ahead of the second one; not above 0 where that is not certain.
    pub margin: Margin,
}

/// What the evidence proves.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Who leads, best first.
    Settled(Vec<Leader>),
    /// Every member's probabilities of these tokens (ascending) are needed.
    Unknown(Vec<u32>),
    /// More of every member's likeliest tokens are needed.
    Deeper,
}

/// What the evidence says about one token, where the member's probability of it is known from everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many participants gave it more than the threshold.
    pub votes: u32,
    /// No token had a vote.
    pub by_weighted_average: bool,
    /// Whether it is the winner; none where that is not proved.
    pub wins: Option<bool>,
}

/// A token with what is known of it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    id: u32,
    votes: u32,
    /// Bounds of its probability under the mixture.
    low: f64,
    high: f64,
    /// Every member's probability of it is known.
    is_known: bool,
}

/// All tokens that somebody named, best first as far as that is known, and the bound of all others.
struct Field<'a> {
    standings: Vec<Standing>,
    /// How many tokens nobody named.
    others: usize,
    others_high: f64,
    /// The members that have a share, in member order.
    sharing: Vec<(f64, &'a Evidence)>,
}

impl Evidence {
    /// What a member's likeliest tokens say.
    pub fn new(top: &Top<'_>) -> Self {
        let log_probs = top.logits.iter().map(|logit| top.norm.log_prob(*logit));
        Self { norm: top.norm, known: top.ids.iter().copied().zip(log_probs).collect(), bound: top.bound }
    }

    /// Adds what the member answers about given tokens.
    ///
    /// # Errors
    /// It contradicts what the member said before: another norm, a token that should have been among the likeliest, or
    /// another logit.
    pub fn learn(&mut self, ids: &[u32], logits: &[f32], norm: Norm) -> Result<(), RowError> {
        for (id, logit) in ids.iter().zip(logits) {
            check_logit(*id, *logit, norm)?;
            let log_prob = norm.log_prob(*logit);
            let contradiction = Err(RowError::Contradiction { id: *id });
            if norm != self.norm {
                return contradiction;
            }
            match self.known.binary_search_by_key(id, |(id, _)| *id) {
                Ok(place) if self.known.get(place).is_some_and(|(_, known)| *known == log_prob) => {}
                Err(place) if log_prob <= self.bound => self.known.insert(place, (*id, log_prob)),
                _ => return contradiction,
            }
        }
        Ok(())
    }

    /// Adds a longer list of the member's likeliest tokens.
    ///
    /// # Errors
    /// It contradicts what the member said before.
    pub fn deepen(&mut self, top: &Top<'_>) -> Result<(), RowError> {
        self.learn(top.ids, top.logits, top.norm)?;
        // Whatever was known already is in the list or below it.
        let unlisted = self.known.iter().filter(|(id, _)| top.ids.binary_search(id).is_err());
        if let Some((id, _)) = unlisted.into_iter().find(|(_, log_prob)| *log_prob > top.bound) {
            return Err(RowError::Contradiction { id: *id });
        }
        self.bound = self.bound.min(top.bound);
        Ok(())
    }

    /// Which of these tokens the member has not spoken about.
    pub fn unknown(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter().copied().filter(|id| self.log_prob(*id).is_none()).collect()
    }

    /// The member's likeliest tokens with their log-probabilities: likeliest first, equal ones by lower id. At most as many
    /// as are known to be the likeliest.
    pub fn leading(&self, n: usize) -> Vec<Candidate> {
        let known = self.known.iter().map(|(id, log_prob)| Candidate { id: *id, log_prob: *log_prob });
        let mut leading: Vec<Candidate> = known.filter(|known| known.log_prob >= self.bound).collect();
        leading.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then(a.id.cmp(&b.id)));
        leading.truncate(n);
        leading
    }

    /// The member's log-probability of a token, where it is known.
    pub fn log_prob(&self, id: u32) -> Option<f64> {
        let place = self.known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.known.get(place).map(|(_, log_prob)| *log_prob)
    }
}

/// Judges what all participants said, in member order, each with its weight.
///
/// ```
/// use chorus_coordinator::fusion::certificate::{Contest, Evidence, Leader, Places, Verdict, judge};
/// use chorus_coordinator::fusion::Norm;
/// use chorus_coordinator::tops::Top;
///
/// // Two members with probabilities 0.5, 0.3, 0.2 and 0.6, 0.1, 0.3, of which they name the two likeliest.
/// let norm = Norm { largest: 0.0, log_sum: 0.0 };
/// let top = |ids, logits, bound: f64| {
///     Evidence::new(&Top { ids, logits, norm, target: None, bound: bound.ln() })
/// };
/// let (alto, bass) = ([0.5_f32.ln(), 0.3_f32.ln()], [0.6_f32.ln(), 0.3_f32.ln()]);
/// let (alto, bass) = (top(&[0, 1], &alto, 0.3), top(&[0, 2], &bass, 0.3));
/// let contest = Contest { log_threshold: None, places: Places::Winner, vocabulary_size: 3 };
/// // Token 0 has 0.55. No other can have more than 0.3.
/// let Verdict::Settled(leaders) = judge(&contest, &[(1.0, &alto), (1.0, &bass)])? else { panic!() };
/// assert_eq!(leaders[0].id, 0);
/// // The second place is open: tokens 1 and 2 have at least 0.15.
/// let contest = Contest { places: Places::Leaders(2), ..contest };
/// assert_eq!(judge(&contest, &[(1.0, &alto), (1.0, &bass)])?, Verdict::Unknown(vec![1, 2]));
/// # Ok::<(), chorus_coordinator::fusion::FuseError>(())
/// ```
///
/// # Errors
/// No participants, or all their weights are 0.
pub fn judge(contest: &Contest, participants: &[(f64, &Evidence)]) -> Result<Verdict, FuseError> {
    let field = Field::new(contest, participants)?;
    let places = match contest.places {
        Places::Winner => 1,
        Places::Leaders(places) => places.min(contest.vocabulary_size),
    };
    let Some(last) = places.checked_sub(1).and_then(|last| field.standings.get(last)).copied() else {
        return Ok(if places == 0 { Verdict::Settled(Vec::new()) } else { Verdict::Deeper });
    };
    let (leaders, rest) = field.standings.split_at(places);
    let rivals = rest.iter().filter(|rival| rival.votes == last.votes && !is_below(rival.high, last.low));
    let contenders: Vec<Standing> = leaders.iter().chain(rivals).copied().collect();
    if let ([winner], Places::Winner) = (contenders.as_slice(), contest.places)
        && field.others_are_below(winner)
    {
        let Standing { id, votes, .. } = *winner;
        return Ok(Verdict::Settled(vec![Leader { id, votes, log_prob: None }]));
    }
    let unknown = contenders.iter().filter(|contender| !contender.is_known);
    let mut unknown: Vec<u32> = unknown.map(|contender| contender.id).collect();
    if unknown.is_empty() {
        return Ok(field.order(&contenders, places));
    }
    // The best that exact values could make of the last place.
    let mut best = contenders;
    best.sort_by(|a, b| b.votes.cmp(&a.votes).then(b.high.total_cmp(&a.high)));
    let best_last = best.get(places - 1).map_or(last, |best| Standing { low: best.high, ..*best });
    if !field.others_are_below(&best_last) {
        return Ok(Verdict::Deeper);
    }
    unknown.sort_unstable();
    Ok(Verdict::Unknown(unknown))
}

/// Who leads for certain, and by how much; not above 0 where nobody does.
///
/// # Errors
/// No participants, or all their weights are 0.
pub fn ahead(contest: &Contest, participants: &[(f64, &Evidence)]) -> Result<Ahead, FuseError> {
    let field = Field::new(contest, participants)?;
    let Some((first, rest)) = field.standings.split_first() else {
        let nothing =
            if contest.log_threshold.is_some() { Margin::Votes(0) } else { Margin::Probability(0.0) };
        return Ok(Ahead { id: 0, margin: nothing });
    };
    let id = first.id;
    if contest.log_threshold.is_some() {
        // Sorted by votes.
        let margin = Margin::Votes(first.votes - rest.first().map_or(0, |rival| rival.votes));
        return Ok(Ahead { id, margin });
    }
    let others = if field.others > 0 { field.others_high } else { 0.0 };
    let highest = rest.iter().map(|rival| rival.high).fold(others, f64::max);
    Ok(Ahead { id, margin: Margin::Probability(first.low - highest) })
}

/// What all participants' evidence, in member order and with their weights, says about a token whose probability is known
/// from each of them. `contest.places` is of no interest.
///
/// # Errors
/// No participants, or all their weights are 0.
pub fn outcome(
    token: u32,
    contest: &Contest,
    participants: &[(f64, &Evidence)],
) -> Result<Outcome, FuseError> {
    let field = Field::new(contest, participants)?;
    let most = field.standings.iter().map(|standing| standing.votes).max().unwrap_or(0);
    let by_weighted_average = most == 0;
    let Some(own) = field.standings.iter().find(|standing| standing.id == token).copied() else {
        return Ok(Outcome { votes: 0, by_weighted_average, wins: None });
    };
    let rivals = || field.standings.iter().filter(|rival| rival.id != token && rival.votes == own.votes);
    let wins = if own.votes < most || rivals().any(|rival| field.is_above(rival, &own)) {
        Some(false)
    } else if rivals().all(|rival| field.is_above(&own, rival)) && field.others_are_below(&own) {
        Some(true)
    } else {
        None
    };
    Ok(Outcome { votes: own.votes, by_weighted_average, wins })
}

/// Whether a probability of at most `high` is less than one of at least `low`, whatever rounding did to both.
fn is_below(high: f64, low: f64) -> bool {
    high < low * (1.0 - ROUNDING)
}

impl<'a> Field<'a> {
    fn new(contest: &Contest, participants: &[(f64, &'a Evidence)]) -> Result<Self, FuseError> {
        let weights: Vec<f64> = participants.iter().map(|(weight, _)| *weight).collect();
        let shares = shares(Rule::WeightedAverage, &weights)?;
        let all = shares.iter().copied().zip(participants.iter().map(|(_, evidence)| *evidence));
        let sharing: Vec<(f64, &Evidence)> = all.filter(|(share, _)| *share > 0.0).collect();
        let bounds: Vec<f64> = sharing.iter().map(|(share, evidence)| share * evidence.bound.exp()).collect();
        let named = participants.iter().flat_map(|(_, evidence)| &evidence.known);
        let mut ids: Vec<u32> = named.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        let standings = ids.into_iter().map(|id| {
            let mut standing = Standing::new(id, &sharing, &bounds);
            if let Some(threshold) = contest.log_threshold {
                standing.votes = votes(id, threshold, participants);
            }
            standing
        });
        let mut standings: Vec<Standing> = standings.collect();
        standings.sort_by(|a, b| b.votes.cmp(&a.votes).then(b.low.total_cmp(&a.low)).then(a.id.cmp(&b.id)));
        Ok(Self {
            others: contest.vocabulary_size.saturating_sub(standings.len()),
            standings,
            others_high: bounds.iter().sum(),
            sharing,
        })
    }

    /// Whether no token that nobody named can take this one's place.
    fn others_are_below(&self, standing: &Standing) -> bool {
        standing.votes > 0 || self.others == 0 || is_below(self.others_high, standing.low)
    }

    /// Whether one token, of as many votes as the other, certainly comes before it.
    fn is_above(&self, one: &Standing, other: &Standing) -> bool {
        if one.is_known && other.is_known {
            return precedence(&self.leader(one), &self.leader(other)) == Ordering::Less;
        }
        is_below(other.high, one.low)
    }

    /// The places of contenders whose values are known.
    fn order(&self, contenders: &[Standing], places: usize) -> Verdict {
        let mut leaders: Vec<(Leader, &Standing)> =
            contenders.iter().map(|contender| (self.leader(contender), contender)).collect();
        leaders.sort_by(|(a, _), (b, _)| precedence(a, b));
        leaders.truncate(places);
        match leaders.last() {
            Some((_, last)) if !self.others_are_below(last) => Verdict::Deeper,
            _ => Verdict::Settled(leaders.into_iter().map(|(leader, _)| leader).collect()),
        }
    }

    /// A token whose value is known, with the logarithm that whole rows give.
    fn leader(&self, standing: &Standing) -> Leader {
        let Standing { id, votes, .. } = *standing;
        let sharing = self.sharing.iter();
        let column = sharing.filter_map(|(share, evidence)| Some((*share, evidence.log_prob(id)?)));
        Leader { id, votes, log_prob: Some(log_of_mixture(&column)) }
    }
}

/// How many participants give a token more than the threshold.
fn votes(id: u32, log_threshold: f64, participants: &[(f64, &Evidence)]) -> u32 {
    let log_probs = participants.iter().filter_map(|(_, evidence)| evidence.log_prob(id));
    u32::try_from(log_probs.filter(|log_prob| *log_prob > log_threshold).count()).unwrap_or(u32::MAX)
}

/// `Less` where `a` comes first; both have a log-probability.
fn precedence(a: &Leader, b: &Leader) -> Ordering {
    let log_prob = |leader: &Leader| leader.log_prob.unwrap_or(f64::NEG_INFINITY);
    b.votes.cmp(&a.votes).then(log_prob(b).total_cmp(&log_prob(a))).then(a.id.cmp(&b.id))
}

impl Standing {
    /// `sharing`: the members that have a share, in member order; `bounds`: for each the most that a token which it has not
    /// named adds to the mixture.
    fn new(id: u32, sharing: &[(f64, &Evidence)], bounds: &[f64]) -> Self {
        let mut standing = Self { id, votes: 0, low: 0.0, high: 0.0, is_known: true };
        for ((share, evidence), bound) in sharing.iter().zip(bounds) {
            if let Some(log_prob) = evidence.log_prob(id) {
                let part = share * log_prob.exp();
                standing.low += part;
                standing.high += part;
            } else {
                standing.high += bound;
                standing.is_known = false;
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests;
