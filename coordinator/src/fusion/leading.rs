//! The first few tokens of an order, found without an order of all: a few are kept, and only what may come before the last of
//! them is looked at exactly. Knows nothing about what the order is of.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f64,
}

/// A token with its place in the order: most votes first, then the likelier, then the lower id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    pub(super) votes: u32,
    pub(super) log_prob: f64,
    pub(super) id: u32,
    /// What stands for its probability where exactness is not needed.
    value: f32,
}

impl Ranked {
    /// `Greater` where it comes first.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let votes = self.votes.cmp(&other.votes);
        votes.then(self.log_prob.total_cmp(&other.log_prob)).then(other.id.cmp(&self.id))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(other)
    }
}

impl From<Ranked> for Candidate {
    fn from(ranked: Ranked) -> Self {
        Self { id: ranked.id, log_prob: ranked.log_prob }
    }
}

/// The first `n` tokens, first one first. `next` gives the first place from a place on whose token may come before one that
/// has this many votes and this value, or that is to be looked at in any case (`None`); `key` a token's votes and value;
/// `log_prob` its log-probability.
///
/// Ids rise, so a token that is equal to one that is kept comes after it.
pub(super) fn leading(
    n: usize,
    next: impl Fn(usize, Option<(u32, f32)>) -> Option<usize>,
    key: impl Fn(usize) -> (u32, f32),
    log_prob: impl Fn(u32) -> f64,
) -> Vec<Ranked> {
    let mut kept: BinaryHeap<Reverse<Ranked>> = BinaryHeap::new();
    if n == 0 {
        return Vec::new();
    }
    let mut start = 0;
    loop {
        let last = kept.peek().filter(|_| kept.len() >= n).map(|Reverse(last)| (last.votes, last.value));
        let Some(place) = next(start, last) else {
            return kept.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked).collect();
        };
        let ranked = ranked(place, &key, &log_prob);
        if kept.len() < n {
            kept.push(Reverse(ranked));
        } else if let Some(mut last) = kept.peek_mut()
            && ranked > last.0
        {
            last.0 = ranked;
        }
        start = place + 1;
    }
}

/// The first token, among those that may come before one that has this many votes and this value: [`leading`] of one,
/// without an allocation.
pub(super) fn first(
    before: (u32, f32),
    next: impl Fn(usize, Option<(u32, f32)>) -> Option<usize>,
    key: impl Fn(usize) -> (u32, f32),
    log_prob: impl Fn(u32) -> f64,
) -> Option<Ranked> {
    let mut first: Option<Ranked> = None;
    let mut start = 0;
    while let Some(place) = next(start, Some(first.map_or(before, |first| (first.votes, first.value)))) {
        let ranked = ranked(place, &key, &log_prob);
        first = first.max(Some(ranked));
        start = place + 1;
    }
    first
}

fn ranked(place: usize, key: impl Fn(usize) -> (u32, f32), log_prob: impl Fn(u32) -> f64) -> Ranked {
    let (votes, value) = key(place);
    let id = u32::try_from(place).unwrap_or(u32::MAX);
    Ranked { votes, log_prob: log_prob(id), id, value }
}
