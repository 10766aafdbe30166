//! Weights with which the vote is right more often. They decide only between candidates with equal votes. Knows nothing about how
//! a threshold is chosen.
//!
//! Accuracy has steps and no slope, but along a line between two weights every mixture is a straight line, so the token that came
//! leads on one interval of it, and the point that lies in most intervals is the best one of the line: the exact line search of
//! minimum error rate training (Och 2003). Lines are searched until none is better; that is an optimum along all of
//! them and no proof that there is no better one elsewhere.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use rayon::prelude::*;

use super::{Candidates, VoteError, log_of_mixture, log_threshold};
use crate::learned::{Observer, Progress};
use crate::simplex::{equal_shares, shares, towards};
use crate::sums::blocks;

/// Rounds over all lines from one start. Each has to find something better, and few do more than a handful.
const ROUNDS: usize = 25;

/// Weights for a vote.
#[derive(Clone, Debug, PartialEq)]
pub struct VoteWeights {
    /// In member order; they sum to one.
    pub weights: Vec<f64>,
    /// The share of tokens on which the winner is the token that came.
    pub accuracy: f64,
    /// The same with equal weights.
    pub equal_accuracy: f64,
    /// By how much the token that came is ahead of the others that it stands against, in probability, in the mean over all
    /// tokens that weights decide and for which the token that came could win; negative where it is behind.
    pub margin: f64,
    /// The share of tokens that weights decide.
    pub contested: f64,
    /// How many lines were searched.
    pub lines: usize,
}

/// A token on which several candidates have the most votes, and one of them came.
struct Contest {
    /// `[leaders, members]`; the rows by rising id.
    log_probs: Vec<f64>,
    /// The same as probabilities.
    probabilities: Vec<f64>,
    /// Which row is the token that came.
    target: usize,
}

/// All that weights decide.
struct Contests {
    members: usize,
    /// Those that the token that came can win.
    open: Vec<Contest>,
    /// Tokens that weights decide.
    contested: usize,
    /// Tokens that votes decide, rightly.
    right: usize,
}

/// How good weights are: more right ones, then the larger margin.
#[derive(Clone, Copy, PartialEq)]
struct Score {
    right: usize,
    margin: f64,
}

impl Score {
    fn is_better_than(&self, other: &Self) -> bool {
        self.right.cmp(&other.right).then(self.margin.total_cmp(&other.margin)) == Ordering::Greater
    }
}

impl Candidates {
    /// Looks for weights with which the vote is right most often: from equal weights, from each of `starts` (those of
    /// expectation-maximisation, say) and from each member with half of the weight. What it finds is at least as good on these
    /// tokens as every start. Weights that are right no more often than equal ones give way to these; of equally good
    /// others the ones with the larger margin stay. The observer is told of the accuracy after every start.
    ///
    /// # Errors
    /// No tokens, a threshold outside [0, 1), starts that can't be shares. An observer that ends it is no error.
    pub fn learn_weights(
        &self,
        threshold: f64,
        starts: &[Vec<f64>],
        observer: &mut Observer<'_>,
    ) -> Result<VoteWeights, VoteError> {
        self.require_tokens()?;
        let contests = Contests::new(self, log_threshold(threshold)?);
        let share = |count: usize| count as f64 / self.tokens() as f64;
        let equal = equal_shares(self.members());
        let mut all = vec![equal.clone()];
        for start in starts {
            all.push(shares(start, self.members())?);
        }
        all.extend((0..self.members()).map(|member| towards(&equal, &corner(member, self.members()), 0.5)));
        let equal_score = contests.score_exactly(&equal);
        let (mut best, mut weights) = (equal_score, equal.clone());
        let (mut lines, parts) = (0, all.len());
        for (part, start) in all.into_iter().enumerate() {
            for found in [contests.climb(&start, &mut lines), start] {
                let score = contests.score_exactly(&found);
                if score.is_better_than(&best) {
                    (best, weights) = (score, found);
                }
            }
            let best = share(contests.right + best.right);
            let progress = Progress { part, parts, passes: lines, limit: lines, best, duality_gap: None };
            if let ControlFlow::Break(()) = observer(&progress) {
                break;
            }
        }
        if best.right == equal_score.right {
            (best, weights) = (equal_score, equal);
        }
        Ok(VoteWeights {
            weights,
            accuracy: share(contests.right + best.right),
            equal_accuracy: share(contests.right + equal_score.right),
            margin: best.margin,
            contested: share(contests.contested),
            lines,
        })
    }
}

impl Contests {
    fn new(candidates: &Candidates, log_threshold: f64) -> Self {
        let mut contests = Self { members: candidates.members(), open: Vec::new(), contested: 0, right: 0 };
        for candidates in (0..candidates.tokens()).filter_map(|token| candidates.token(token)) {
            let mut leaders: Vec<(u32, &[f64])> = candidates.leaders(log_threshold).1.collect();
            let target =
                |leaders: &[(u32, &[f64])]| leaders.iter().position(|(id, _)| *id == candidates.target);
            if leaders.len() == 1 {
                contests.right += usize::from(target(&leaders).is_some());
                continue;
            }
            contests.contested += 1;
            leaders.sort_unstable_by_key(|(id, _)| *id);
            if let Some(target) = target(&leaders) {
                let rows = leaders.iter().flat_map(|(_, log_probs)| log_probs.iter().copied());
                let log_probs: Vec<f64> = rows.collect();
                let probabilities = log_probs.iter().map(|log_prob| log_prob.min(0.0).exp()).collect();
                contests.open.push(Contest { log_probs, probabilities, target });
            }
        }
        contests
    }

    /// Searches lines from here until none has anything better: towards each member, and from each member to each other.
    fn climb(&self, start: &[f64], lines: &mut usize) -> Vec<f64> {
        let mut weights = start.to_vec();
        let mut best = self.score(&weights);
        for _ in 0..ROUNDS {
            let before = best;
            for (from, to) in (0..self.members).flat_map(|from| (0..=from).map(move |to| (from, to))) {
                let [one, other] = line(&weights, from, to);
                let found = self.best_on_line(&one, &other);
                *lines += 1;
                let score = self.score(&found);
                if score.is_better_than(&best) {
                    (best, weights) = (score, found);
                }
            }
            if !best.is_better_than(&before) {
                break;
            }
        }
        weights
    }

    /// The middle of the widest part of a line on which most tokens that came lead.
    fn best_on_line(&self, one: &[f64], other: &[f64]) -> Vec<f64> {
        let leads: Vec<Option<Range<f64>>> =
            self.open.par_iter().map(|contest| contest.leads_on(one, other)).collect();
        let mut ends: Vec<(f64, i64)> = vec![(0.0, 0), (1.0, 0)];
        ends.extend(leads.iter().flatten().flat_map(|lead| [(lead.start, 1), (lead.end, -1)]));
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut leading, mut most, mut widest, mut middle) = (0, i64::MIN, 0.0, 0.5);
        for pair in ends.windows(2) {
            leading += pair[0].1;
            let width = pair[1].0 - pair[0].0;
            if width > 0.0 && (leading > most || (leading == most && width > widest)) {
                (most, widest, middle) = (leading, width, pair[0].0 + 0.5 * width);
            }
        }
        towards(one, other, middle)
    }

    /// How the contests end with these weights, compared as the coordinator compares.
    fn score_exactly(&self, shares: &[f64]) -> Score {
        self.score_by(|contest| {
            let (is_right, own, rival) =
                contest.end(&contest.log_probs, |row| log_of_mixture(row, shares), shares.len());
            (is_right, own.exp() - rival.exp())
        })
    }

    /// The same from probabilities: without logarithms, and so but for mixtures that differ in their last bit.
    fn score(&self, shares: &[f64]) -> Score {
        self.score_by(|contest| {
            let (is_right, own, rival) =
                contest.end(&contest.probabilities, |row| mixture(row, shares), shares.len());
            (is_right, own - rival)
        })
    }

    fn score_by(&self, end: impl Fn(&Contest) -> (bool, f64) + Sync + Send) -> Score {
        let on_block = |range: Range<usize>| {
            self.open[range].iter().map(&end).fold((0, 0.0), |(right, margin), (is_right, ahead)| {
                (right + usize::from(is_right), margin + ahead)
            })
        };
        let parts: Vec<(usize, f64)> = blocks(self.open.len()).map(on_block).collect();
        let (right, margin) =
            parts.iter().fold((0, 0.0), |(right, margin), part| (right + part.0, margin + part.1));
        Score { right, margin: margin / self.open.len().max(1) as f64 }
    }
}

fn mixture(row: &[f64], shares: &[f64]) -> f64 {
    row.iter().zip(shares).map(|(value, share)| value * share).sum()
}

fn corner(member: usize, members: usize) -> Vec<f64> {
    (0..members).map(|other| if other == member { 1.0 } else { 0.0 }).collect()
}

/// The ends of a line through these weights: everything that two members have at one of them; where they are the same member,
/// everything or nothing at that one.
fn line(weights: &[f64], from: usize, to: usize) -> [Vec<f64>; 2] {
    if from != to {
        let both = weights[from] + weights[to];
        let end = |all: usize, none: usize| {
            let mut end = weights.to_vec();
            (end[all], end[none]) = (both, 0.0);
            end
        };
        return [end(from, to), end(to, from)];
    }
    let others = 1.0 - weights[to];
    let without = if others > 0.0 {
        weights
            .iter()
            .enumerate()
            .map(|(member, weight)| if member == to { 0.0 } else { weight / others })
            .collect()
    } else {
        equal_shares(weights.len())
    };
    [without, corner(to, weights.len())]
}

impl Contest {
    /// The part of a line, from 0 at one end to 1 at the other, on which the token that came is ahead of all others.
    fn leads_on(&self, one: &[f64], other: &[f64]) -> Option<Range<f64>> {
        let ends = |row: &[f64]| (mixture(row, one), mixture(row, other));
        let mut rows = self.probabilities.chunks_exact(one.len());
        let own = ends(rows.clone().nth(self.target)?);
        rows.try_fold(0.0..1.0, |lead: Range<f64>, row| {
            let rival = ends(row);
            let (at_one, at_other) = (own.0 - rival.0, own.1 - rival.1);
            // The token itself, or one that is the same for every member.
            if at_one == 0.0 && at_other == 0.0 {
                return Some(lead);
            }
            let crossing = at_one / (at_one - at_other);
            let ahead = match (at_one > 0.0, at_other > 0.0) {
                (true, true) => lead,
                (true, false) => lead.start..lead.end.min(crossing),
                (false, true) => lead.start.max(crossing)..lead.end,
                (false, false) => return None,
            };
            (ahead.start < ahead.end).then_some(ahead)
        })
    }

    /// Whether the token that came wins, its mixture, and the largest one of the others.
    fn end(&self, rows: &[f64], mixture: impl Fn(&[f64]) -> f64, members: usize) -> (bool, f64, f64) {
        let (mut own, mut before, mut behind) = (0.0, f64::NEG_INFINITY, f64::NEG_INFINITY);
        for (place, value) in rows.chunks_exact(members).map(mixture).enumerate() {
            match place.cmp(&self.target) {
                Ordering::Less => before = before.max(value),
                Ordering::Equal => own = value,
                Ordering::Greater => behind = behind.max(value),
            }
        }
        // Of equal ones the lower id wins.
        (own > before && own >= behind, own, before.max(behind))
    }
}
