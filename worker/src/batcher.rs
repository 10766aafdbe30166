//! The batching policy: which sessions' tokens go into the next forward.
//!
//! Cellular batching: whatever is queued when the engine is free, of any session at any position and for any ask, forms the
//! next batch. Within a session first come, first served; between sessions a round: whoever got a chunk goes to the end of
//! its line. There are two lines, since a generation's next token must not wait behind documents: jobs of a single token
//! go first, and leave a quarter of the forward to the others, whose feeds are cut into chunks. So a next token waits for
//! the forward that is under way and no other, as long as three quarters of a forward hold all that wait like it. Pure:
//! knows nothing about states, models or time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    credit::Credit,
    job::{Demand, Job},
    operation::{Operation, SessionKey, SessionMap},
    predictor::Want,
};

/// How much one forward computes at most. A single token, or a single row of logits, always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// About how long it should take: how much longer a next token waits at most because of what others asked. From the
    /// pace of the forwards before follows how many tokens that are.
    pub duration: Duration,
    /// Tokens of one session.
    pub chunk_tokens: usize,
    /// Tokens of all sessions together, however fast the model is.
    pub tokens: usize,
    /// Values in all rows of logits together (rows * vocabulary size).
    pub logits: usize,
}

/// An operation that waits for its turn.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) operation: Operation,
    pub(crate) credit: Credit,
    /// When it was taken in.
    pub(crate) since: Instant,
}

/// What each session has waiting and under way.
#[derive(Debug)]
pub(crate) struct Batcher {
    queues: SessionMap<Queue>,
    /// Sessions with a job of one token at most, in the order in which they get on.
    short_line: VecDeque<SessionKey>,
    /// Sessions with a longer job, in the order in which they get the next chunks.
    long_line: VecDeque<SessionKey>,
    limits: BatchLimits,
    max_rows: usize,
}

#[derive(Debug, Default)]
struct Queue {
    current: Current,
    waiting: VecDeque<Waiting>,
}

/// What a session is at.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "there is a queue where there is a job, with few exceptions")]
enum Current {
    /// Nothing.
    #[default]
    Nothing,
    /// A job that waits for a forward.
    InLine(Job),
    /// A job that is in one.
    Computing,
}

impl BatchLimits {
    /// The defaults on the device of that name. A large device is busy with thousands of tokens only, and they take it no
    /// longer than some dozens; all of its workspace is taken when the model is loaded.
    #[must_use]
    pub fn on(device: &str) -> Self {
        match device {
            "cpu" => Self::default(),
            _ => Self { chunk_tokens: 256, tokens: 4096, logits: 1 << 26, ..Self::default() },
        }
    }
}

impl Default for BatchLimits {
    /// Six texts of 32 tokens: a tile of the engine's kernel takes six rows, and some hundred rows share all that there is to
    /// share. In larger forwards everybody waits for everybody, and the members that answer later for each other.
    fn default() -> Self {
        Self { duration: Duration::from_millis(20), chunk_tokens: 32, tokens: 192, logits: 1 << 24 }
    }
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits, vocabulary_size: usize) -> Self {
        let max_rows = limits.logits / vocabulary_size.max(1);
        let (short_line, long_line) = (VecDeque::new(), VecDeque::new());
        Self { queues: SessionMap::default(), short_line, long_line, limits, max_rows }
    }

    /// Whether there is anything to compute.
    pub(crate) fn has_jobs(&self) -> bool {
        !(self.short_line.is_empty() && self.long_line.is_empty())
    }

    /// How many jobs there are.
    pub(crate) fn jobs(&self) -> usize {
        self.short_line.len() + self.long_line.len()
    }

    /// Whether a session has a job.
    pub(crate) fn is_busy(&self, key: SessionKey) -> bool {
        self.queues.get(&key).is_some_and(Queue::is_busy)
    }

    /// Whether a feed waits behind a session's job.
    pub(crate) fn has_feed_waiting(&self, key: SessionKey) -> bool {
        let is_feed = |waiting: &Waiting| matches!(waiting.operation, Operation::Feed(_));
        self.queues.get(&key).is_some_and(|queue| queue.waiting.iter().any(is_feed))
    }

    /// Whether nobody has anything waiting or under way.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.is_empty() && !self.has_jobs()
    }

    /// Queues an operation behind the session's others; where there are none it comes back, to be worked off at once.
    pub(crate) fn push(&mut self, key: SessionKey, waiting: Waiting) -> Option<Waiting> {
        match self.queues.get_mut(&key) {
            Some(queue) => queue.waiting.push_back(waiting),
            None => return Some(waiting),
        }
        None
    }

    /// The session's next operation; none while a job is under way.
    pub(crate) fn next(&mut self, key: SessionKey) -> Option<Waiting> {
        let queue = self.queues.get_mut(&key).filter(|queue| !queue.is_busy())?;
        let next = queue.waiting.pop_front();
        if next.is_none() {
            self.queues.remove(&key);
        }
        next
    }

    /// Puts a job at the end of its line: a new one, or one that goes on.
    pub(crate) fn enqueue(&mut self, key: SessionKey, job: Job) {
        self.line(&job).push_back(key);
        self.queues.entry(key).or_default().current = Current::InLine(job);
    }

    /// Puts jobs back to where they were taken from for a forward that is not to be yet.
    pub(crate) fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = (SessionKey, Job)>) {
        for (key, job) in jobs.rev() {
            self.line(&job).push_front(key);
            self.queues.entry(key).or_default().current = Current::InLine(job);
        }
    }

    /// A session's job is in no forward any more, nor does it wait for one.
    pub(crate) fn done(&mut self, key: SessionKey) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.current = Current::Nothing;
        }
    }

    /// Takes the jobs of the next forward of so many tokens out, each with the number of tokens that it may feed. A session is
    /// busy until its job is in line again or [`Batcher::done`].
    pub(crate) fn next_batch(&mut self, tokens: usize) -> Vec<(SessionKey, Job, usize)> {
        let mut room =
            Room { tokens: tokens.clamp(1, self.limits.tokens.max(1)), rows: self.max_rows.max(1) };
        let kept = if self.long_line.is_empty() { Room { tokens: 0, rows: 0 } } else { room.quarter() };
        room.take(&kept);
        let mut batch = Vec::new();
        fill(&mut batch, &mut self.queues, &mut self.short_line, &mut room, &self.limits);
        room.give(&kept);
        fill(&mut batch, &mut self.queues, &mut self.long_line, &mut room, &self.limits);
        batch
    }

    /// Gives up everything that a session has waiting, in order: its job, unless it is in a forward, and what comes behind it.
    pub(crate) fn discard(&mut self, key: SessionKey) -> (Option<Job>, VecDeque<Waiting>) {
        self.short_line.retain(|&other| other != key);
        self.long_line.retain(|&other| other != key);
        self.queues.remove(&key).map_or_else(Default::default, Queue::into_parts)
    }

    /// The same for everybody: of each session in order, the sessions by their numbers.
    pub(crate) fn discard_all(&mut self) -> Vec<(SessionKey, Option<Job>, VecDeque<Waiting>)> {
        self.short_line.clear();
        self.long_line.clear();
        let queues = std::mem::take(&mut self.queues).into_iter();
        let all = queues.map(|(key, queue)| {
            let (job, waiting) = queue.into_parts();
            (key, job, waiting)
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|(key, ..)| *key);
        all
    }

    /// Gives up everything of a stream.
    pub(crate) fn discard_stream(&mut self, stream: u64) {
        self.short_line.retain(|key| key.stream != stream);
        self.long_line.retain(|key| key.stream != stream);
        self.queues.retain(|key, _| key.stream != stream);
    }

    fn line(&mut self, job: &Job) -> &mut VecDeque<SessionKey> {
        if job.demand().tokens <= 1 { &mut self.short_line } else { &mut self.long_line }
    }
}

impl Queue {
    fn is_busy(&self) -> bool {
        !matches!(self.current, Current::Nothing)
    }

    /// The job that waits for a forward.
    fn job(&self) -> Option<&Job> {
        match &self.current {
            Current::InLine(job) => Some(job),
            Current::Nothing | Current::Computing => None,
        }
    }

    /// Takes that one out, to compute it.
    fn take_job(&mut self) -> Option<Job> {
        match std::mem::replace(&mut self.current, Current::Computing) {
            Current::InLine(job) => Some(job),
            other => {
                self.current = other;
                None
            }
        }
    }

    fn into_parts(mut self) -> (Option<Job>, VecDeque<Waiting>) {
        (self.take_job(), self.waiting)
    }
}

/// What a forward has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    tokens: usize,
    /// Of logits.
    rows: usize,
}

impl Room {
    fn quarter(&self) -> Self {
        Self { tokens: self.tokens / 4, rows: self.rows / 4 }
    }

    fn take(&mut self, other: &Self) {
        self.tokens -= other.tokens;
        self.rows -= other.rows;
    }

    fn give(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.rows += other.rows;
    }
}

/// Takes the first jobs of a line out, as far as the room goes.
fn fill(
    batch: &mut Vec<(SessionKey, Job, usize)>,
    queues: &mut SessionMap<Queue>,
    line: &mut VecDeque<SessionKey>,
    room: &mut Room,
    limits: &BatchLimits,
) {
    let demands = line.iter().filter_map(|key| queues.get(key)?.job()).map(Job::demand);
    let shares = share(limits.chunk_tokens, room, demands);
    for (key, tokens) in line.drain(..shares.len()).zip(shares) {
        if let Some(job) = queues.get_mut(&key).and_then(Queue::take_job) {
            batch.push((key, job, tokens));
        }
    }
}

/// How many tokens each of the first jobs in a line may feed; the line is cut where the room is used up.
fn share(chunk_tokens: usize, room: &mut Room, demands: impl Iterator<Item = Demand>) -> Vec<usize> {
    let mut shares = Vec::new();
    for Demand { tokens, want } in demands {
        let mut share = tokens.min(chunk_tokens.max(1)).min(room.tokens);
        if want == Want::Each {
            share = share.min(room.rows);
        }
        let rows = if want == Want::Next && share < tokens { 0 } else { want.rows(share) };
        if rows > room.rows || (share == 0 && tokens > 0) {
            break;
        }
        room.take(&Room { tokens: share, rows });
        shares.push(share);
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::operation::{Ask, Feed};

    const LIMITS: BatchLimits =
        BatchLimits { duration: Duration::ZERO, chunk_tokens: 4, tokens: 10, logits: 1 << 10 };

    fn demand(tokens: usize, want: Want) -> Demand {
        Demand { tokens, want }
    }

    fn shares(max_rows: usize, demands: &[Demand]) -> Vec<usize> {
        share(LIMITS.chunk_tokens, &mut Room { tokens: 10, rows: max_rows }, demands.iter().copied())
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
            let (tokens, max_rows) = (tokens.max(1), max_rows.max(1));
            let mut room = Room { tokens, rows: max_rows };
            let shares = share(chunk_tokens, &mut room, demands.iter().copied());
            prop_assert!(!shares.is_empty());
            prop_assert!(shares[0] > 0 || demands[0].tokens == 0);
            prop_assert!(shares.iter().sum::<usize>() <= tokens);
            let rows = |(&share, demand): (&usize, &Demand)| match demand.want {
                Want::Next if share < demand.tokens => 0,
                want => want.rows(share),
            };
            prop_assert!(shares.iter().zip(&demands).map(rows).sum::<usize>() <= max_rows);
        }

        /// Every single token is in the very next forward, whatever documents wait, and these get on in each one.
        #[test]
        fn a_next_token_never_waits_behind_documents(
            documents in prop::collection::vec((2_usize..400, any::<bool>()), 1..20),
            singles in 0_usize..30,
            tokens in 40_usize..80,
        ) {
            let limits = BatchLimits { tokens: 1000, ..LIMITS };
            let mut batcher = Batcher::new(limits, 1);
            let job = |tokens: usize, ask| {
                Job::new(Feed::new(1, vec![0; tokens], ask), Credit::default(), Instant::now())
            };
            let key = |session| SessionKey { stream: 1, session };
            for (session, (tokens, scored)) in (100..).zip(&documents) {
                batcher.enqueue(key(session), job(*tokens, if *scored { Ask::Targets } else { Ask::Nothing }));
            }
            let mut forwards = 0;
            while !batcher.long_line.is_empty() {
                for session in 0..singles as u64 {
                    batcher.enqueue(key(session), job(1, Ask::Nothing));
                }
                let batch = batcher.next_batch(tokens);
                let alone = batch.iter().filter(|(key, ..)| key.session < 100).count();
                prop_assert_eq!(alone, singles, "all of them, in this forward");
                prop_assert!(batcher.short_line.is_empty());
                let fed: usize = batch.iter().map(|(_, _, tokens)| tokens).sum();
                prop_assert!(fed <= tokens && fed > singles);
                for (key, mut job, fed) in batch {
                    job.advance(fed);
                    if key.session >= 100 && job.demand().tokens > 1 {
                        batcher.enqueue(key, job);
                    }
                }
                forwards += 1;
                prop_assert!(forwards < 10_000, "the documents are done at some time");
            }
        }
    }
}
