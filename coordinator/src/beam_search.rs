//! Beam search: which sequences are kept at every step, which are finished, and when no better one can come.
//!
//! Pure. Knows nothing about distributions, members or text: continuations come in with their log-probabilities, and whoever
//! calls says which of them end a sequence.

use std::cmp::Ordering;

use crate::request::Beam;

/// A token that may follow a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// The token.
    pub id: u32,
    /// Its log-probability; natural logarithm.
    pub log_prob: f64,
    /// What it counts in the search: its log-probability, bent; at most 0.
    pub bent: f64,
    /// Each participant's own log-probability; only where somebody wants to know.
    pub of_members: Vec<f64>,
}

/// Why a sequence is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By the end token.
    EndToken,
    /// By a stop string.
    StopString,
    /// It is as long as it may be.
    MaxTokens,
}

/// A sequence that is kept, with what the caller keeps of it.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    /// Which of the sequences before it continues, by their order.
    pub parent: usize,
    /// Its last token.
    pub id: u32,
    /// The caller's.
    pub text: T,
}

/// A sequence that the search found.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// Its tokens, in order.
    pub tokens: Vec<Continuation>,
    /// What it was compared by.
    pub score: f64,
    /// Why it ends.
    pub finish: Finish,
    /// The caller's.
    pub text: T,
}

/// One search in progress.
#[derive(Debug)]
pub struct BeamSearch<T> {
    beam: Beam,
    max_tokens: usize,
    /// The length of all sequences that go on.
    length: usize,
    /// Every token that was ever kept, behind the one before it: sequences share their beginnings.
    nodes: Vec<Node>,
    /// Where the sequences that go on end, best first, and what their tokens count; the first one is empty.
    live: Vec<Live>,
    /// Best first; no more than are told in the end.
    finished: Vec<Finished<T>>,
}

#[derive(Debug)]
struct Node {
    before: Option<usize>,
    token: Continuation,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    last: Option<usize>,
    sum: f64,
}

#[derive(Debug)]
struct Finished<T> {
    last: usize,
    score: f64,
    finish: Finish,
    text: T,
}

impl<T> BeamSearch<T> {
    /// Begins with the empty sequence. `max_tokens` is at least 1.
    pub fn new(beam: Beam, max_tokens: usize) -> Self {
        let live = vec![Live { last: None, sum: 0.0 }];
        Self { beam, max_tokens, length: 0, nodes: Vec::new(), live, finished: Vec::new() }
    }

    /// Keeps the best continuations of all sequences, given for each of them in order. Says which sequences go on, best first.
    ///
    /// `read` takes the place of a sequence and the token that is appended to it, and gives what the caller keeps of the new
    /// sequence and whether it ends. Continuations that count the same are taken in the order of their sequences and ids.
    pub fn advance(
        &mut self,
        continuations: Vec<Vec<Continuation>>,
        mut read: impl FnMut(usize, u32) -> (T, Option<Finish>),
    ) -> Vec<Kept<T>> {
        self.length += 1;
        let before = std::mem::take(&mut self.live);
        let mut all: Vec<(usize, f64, Continuation)> = Vec::new();
        for (parent, (live, continuations)) in before.iter().zip(continuations).enumerate() {
            all.extend(continuations.into_iter().map(|token| (parent, live.sum + token.bent, token)));
        }
        all.sort_by(|(parent, sum, token), (other_parent, other_sum, other)| {
            other_sum.total_cmp(sum).then((parent, token.id).cmp(&(other_parent, other.id)))
        });
        let is_last = self.length >= self.max_tokens;
        let mut kept = Vec::new();
        // Whoever ends takes a place, too: sequences that are worse than as many as are kept are none of the best.
        for (parent, sum, token) in all.into_iter().take(2 * self.beam.size) {
            if self.live.len() >= self.beam.size || sum == f64::NEG_INFINITY {
                break;
            }
            let id = token.id;
            let (text, finish) = read(parent, id);
            let last = self.nodes.len();
            self.nodes.push(Node { before: before.get(parent).and_then(|live| live.last), token });
            match finish.or(is_last.then_some(Finish::MaxTokens)) {
                Some(finish) => self.finish(last, sum, finish, text),
                None => {
                    self.live.push(Live { last: Some(last), sum });
                    kept.push(Kept { parent, id, text });
                }
            }
        }
        if self.is_over() {
            self.live.clear();
            kept.clear();
        }
        kept
    }

    /// Whether no sequence that goes on can become better than those that are told.
    fn is_over(&self) -> bool {
        if self.finished.len() < self.beam.n_best {
            return self.live.is_empty();
        }
        let worst = self.finished.last().map_or(f64::NEG_INFINITY, |finished| finished.score);
        // Sums only fall, and the penalty forgives a sequence most at its longest.
        let best = self.live.first().map(|live| self.beam.score(live.sum, self.max_tokens));
        best.is_none_or(|best| best <= worst)
    }

    fn finish(&mut self, last: usize, sum: f64, finish: Finish, text: T) {
        let score = self.beam.score(sum, self.length);
        // Behind those that are as good.
        let place = self.finished.partition_point(|other| other.score.total_cmp(&score) != Ordering::Less);
        self.finished.insert(place, Finished { last, score, finish, text });
        self.finished.truncate(self.beam.n_best);
    }

    /// Those that are told, best first. Empty only where nothing could continue the empty sequence.
    pub fn into_found(self) -> Vec<Found<T>> {
        let Self { nodes, finished, .. } = self;
        let found = finished.into_iter().map(|Finished { last, score, finish, text }| {
            let way = std::iter::successors(nodes.get(last), |node| nodes.get(node.before?));
            let mut tokens: Vec<Continuation> = way.map(|node| node.token.clone()).collect();
            tokens.reverse();
            Found { tokens, score, finish, text }
        });
        found.collect()
    }
}

#[cfg(test)]
mod tests;
