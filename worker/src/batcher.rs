//! The batching policy: which sessions' tokens go into the next forward.
//!
//! Within a session first come, first served; between sessions a round: whoever got a chunk goes to the end of the line.
//! Long feeds are cut into chunks, so that one long prompt does not hold up the others' next tokens. Pure: knows
//! nothing about states, models or time.

use std::collections::{HashMap, VecDeque};

use crate::{
    credit::Credit,
    job::{Demand, Job},
    operation::{Operation, SessionKey},
    predictor::Want,
};

/// How much one forward computes at most. A single token, or a single row of logits, always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens of one session.
    pub chunk_tokens: usize,
    /// Tokens of all sessions together.
    pub tokens: usize,
    /// Values in all rows of logits together (rows * vocabulary size).
    pub logits: usize,
}

/// An operation that waits for its turn.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) operation: Operation,
    pub(crate) credit: Credit,
}

/// What each session has waiting and under way.
#[derive(Debug)]
pub(crate) struct Batcher {
    queues: HashMap<SessionKey, Queue>,
    /// Sessions with a job, in the order in which they get the next chunks.
    line: VecDeque<SessionKey>,
    limits: BatchLimits,
    max_rows: usize,
}

#[derive(Debug, Default)]
struct Queue {
    job: Option<Job>,
    waiting: VecDeque<Waiting>,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { chunk_tokens: 64, tokens: 2048, logits: 1 << 24 }
    }
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits, vocabulary_size: usize) -> Self {
        let max_rows = limits.logits / vocabulary_size.max(1);
        Self { queues: HashMap::new(), line: VecDeque::new(), limits, max_rows }
    }

    /// Whether there is anything to compute.
    pub(crate) fn has_jobs(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether a session has a job.
    pub(crate) fn is_busy(&self, key: SessionKey) -> bool {
        self.queues.get(&key).is_some_and(|queue| queue.job.is_some())
    }

    /// Queues an operation behind the session's others.
    pub(crate) fn push(&mut self, key: SessionKey, operation: Operation, credit: Credit) {
        self.queues.entry(key).or_default().waiting.push_back(Waiting { operation, credit });
    }

    /// The session's next operation; none while a job is under way.
    pub(crate) fn next(&mut self, key: SessionKey) -> Option<Waiting> {
        let queue = self.queues.get_mut(&key).filter(|queue| queue.job.is_none())?;
        let next = queue.waiting.pop_front();
        if next.is_none() {
            self.queues.remove(&key);
        }
        next
    }

    /// Puts a job at the end of the line: a new one, or one that goes on.
    pub(crate) fn enqueue(&mut self, key: SessionKey, job: Job) {
        self.queues.entry(key).or_default().job = Some(job);
        self.line.push_back(key);
    }

    /// Takes the jobs of the next forward out, each with the number of tokens that it may feed.
    pub(crate) fn next_batch(&mut self) -> Vec<(SessionKey, Job, usize)> {
        let demands = self.line.iter().filter_map(|key| self.queues.get(key)?.job.as_ref()).map(Job::demand);
        let shares = share(&self.limits, self.max_rows, demands);
        let mut batch = Vec::with_capacity(shares.len());
        for (key, tokens) in self.line.drain(..shares.len()).zip(shares) {
            if let Some(job) = self.queues.get_mut(&key).and_then(|queue| queue.job.take()) {
                batch.push((key, job, tokens));
            }
        }
        batch
    }

    /// Gives up everything that a session has waiting and under way, in order.
    pub(crate) fn discard(&mut self, key: SessionKey) -> (Option<Job>, VecDeque<Waiting>) {
        self.line.retain(|&other| other != key);
        self.queues.remove(&key).map_or_else(Default::default, |queue| (queue.job, queue.waiting))
    }

    /// Gives up everything of a stream.
    pub(crate) fn discard_stream(&mut self, stream: u64) {
        self.line.retain(|key| key.stream != stream);
        self.queues.retain(|key, _| key.stream != stream);
    }
}

/// How many tokens each of the first jobs in line may feed; the line is cut where the forward is full.
fn share(limits: &BatchLimits, max_rows: usize, demands: impl Iterator<Item = Demand>) -> Vec<usize> {
    let (mut tokens_left, mut rows_left) = (limits.tokens.max(1), max_rows.max(1));
    let mut shares = Vec::new();
    for Demand { tokens, want } in demands {
        let mut share = tokens.min(limits.chunk_tokens.max(1)).min(tokens_left);
        if want == Want::Each {
            share = share.min(rows_left);
        }
        let rows = if want == Want::Next && share < tokens { 0 } else { want.rows(share) };
        if rows > rows_left || (share == 0 && tokens > 0) {
            break;
        }
        tokens_left -= share;
        rows_left -= rows;
        shares.push(share);
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { chunk_tokens: 4, tokens: 10, logits: 0 };

    fn demand(tokens: usize, want: Want) -> Demand {
        Demand { tokens, want }
    }

    fn shares(max_rows: usize, demands: &[Demand]) -> Vec<usize> {
        share(&LIMITS, max_rows, demands.iter().copied())
    }

    #[test]
    fn a_long_feed_gets_a_chunk_and_leaves_room_for_others() {
        let demands = [demand(100, Want::Next), demand(1, Want::Next), demand(1, Want::Nothing)];
        assert_eq!(shares(9, &demands), [4, 1, 1]);
    }

    #[test]
    fn the_line_is_cut_where_the_tokens_are_used_up() {
        let demands = [
            demand(9, Want::Nothing),
            demand(9, Want::Nothing),
            demand(9, Want::Nothing),
            demand(1, Want::Next),
        ];
        assert_eq!(shares(9, &demands), [4, 4, 2]);
    }

    #[test]
    fn the_line_is_cut_where_the_rows_are_used_up() {
        assert_eq!(shares(3, &[demand(4, Want::Each), demand(1, Want::Next)]), [3]);
        assert_eq!(shares(1, &[demand(0, Want::Next), demand(0, Want::Next)]), [0]);
        assert_eq!(
            shares(1, &[demand(9, Want::Next), demand(1, Want::Next)]),
            [4, 1],
            "a chunk within has no row"
        );
    }

    proptest! {
        #[test]
        fn the_first_in_line_always_gets_on_and_no_limit_is_passed(
            demands in prop::collection::vec((0_usize..20, 0..3), 1..20),
            chunk_tokens in 0_usize..6,
            tokens in 0_usize..12,
            max_rows in 0_usize..12,
        ) {
            let wants = [Want::Nothing, Want::Next, Want::Each];
            let demands: Vec<Demand> = demands.into_iter().map(|(tokens, want)| demand(tokens, wants[want as usize])).collect();
            let limits = BatchLimits { chunk_tokens, tokens, logits: 0 };
            let shares = share(&limits, max_rows, demands.iter().copied());
            prop_assert!(!shares.is_empty());
            prop_assert!(shares[0] > 0 || demands[0].tokens == 0);
            prop_assert!(shares.iter().sum::<usize>() <= tokens.max(1));
            let rows = |(&share, demand): (&usize, &Demand)| match demand.want {
                Want::Next if share < demand.tokens => 0,
                want => want.rows(share),
            };
            prop_assert!(shares.iter().zip(&demands).map(rows).sum::<usize>() <= max_rows.max(1));
        }
    }
}
