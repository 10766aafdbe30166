//! The sessions that a worker holds: their states, their steps, their last answers and when they were used.
//!
//! Time is an argument. Knows nothing about what a state is, nor about what waits to be computed.

use std::{hash::RandomState, time::Duration};

use chorus_proto::v1::{self, Failure};
use tokio::time::Instant;

use crate::{
    failure,
    operation::{Feed, SessionKey, SessionMap},
    remembered::RememberedAnswers,
};

/// One client sequence in progress.
#[derive(Debug)]
pub(crate) struct Session<S> {
    pub(crate) state: S,
    /// Tokens consumed so far.
    pub(crate) position: u64,
    /// The last step that was answered, 0 for none, and the digest of its feed.
    step: u64,
    digest: u64,
    last_used: Instant,
}

/// What a step number means for a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It follows the last one.
    Next,
    /// It repeats the last one, whose answer this is.
    Repeated(v1::answer::Answer),
}

/// All sessions of all streams.
#[derive(Debug)]
pub(crate) struct SessionTable<S> {
    sessions: SessionMap<Session<S>>,
    /// Answers of the sessions' last steps; never of a session that is neither here nor lent.
    answers: RememberedAnswers,
    digest_keys: RandomState,
    max_sessions: usize,
    ttl: Duration,
    /// Before this no session can have expired; none where there is none that could.
    next_expiry: Option<Instant>,
}

impl<S> SessionTable<S> {
    /// No sessions yet. `remembered_bytes` bounds the answers that are kept, over all sessions together.
    pub(crate) fn new(max_sessions: usize, ttl: Duration, remembered_bytes: usize) -> Self {
        let answers = RememberedAnswers::new(remembered_bytes);
        let digest_keys = RandomState::new();
        Self { sessions: SessionMap::default(), answers, digest_keys, max_sessions, ttl, next_expiry: None }
    }

    /// Whether `key` can be opened; a session that is replaced makes its own room.
    pub(crate) fn check_room(&self, key: SessionKey) -> Result<(), Failure> {
        if self.sessions.len() < self.max_sessions || self.sessions.contains_key(&key) {
            return Ok(());
        }
        Err(failure::sessions_exhausted(self.max_sessions))
    }

    /// Opens a session at `state`, which has consumed `position` tokens, in place of one that has the same key.
    pub(crate) fn open(&mut self, key: SessionKey, state: S, position: u64, now: Instant) {
        self.answers.forget(key);
        let session = Session { state, position, step: 0, digest: 0, last_used: now };
        self.sessions.insert(key, session);
        // Whatever is there already expires earlier.
        self.next_expiry = self.next_expiry.or_else(|| self.expiry(now));
    }

    /// What the step of a feed means for the session, which counts as used.
    pub(crate) fn check_step(&mut self, key: SessionKey, feed: &Feed, now: Instant) -> Result<Step, Failure> {
        let step = feed.step;
        let session =
            self.sessions.get_mut(&key).ok_or_else(|| failure::unknown_session(key.session, self.ttl))?;
        session.last_used = now;
        if session.step.checked_add(1) == Some(step) {
            return Ok(Step::Next);
        }
        match self.answers.get(key) {
            Some(_) if session.step == step && session.digest != feed.digest(&self.digest_keys) => {
                Err(failure::not_the_same_step(key.session, step))
            }
            Some(answer) if session.step == step => Ok(Step::Repeated(answer.clone())),
            None if session.step == step && step > 0 => Err(failure::answer_forgotten(key.session, step)),
            answer => Err(failure::step_out_of_order(key.session, step, session.step, answer.is_some())),
        }
    }

    /// Counts the step of a feed as done, and keeps its answer in case that it is asked for again.
    pub(crate) fn remember(
        &mut self,
        key: SessionKey,
        feed: &Feed,
        answer: v1::answer::Answer,
        now: Instant,
    ) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.step = feed.step;
            session.digest = feed.digest(&self.digest_keys);
            session.last_used = now;
            self.answers.keep(key, answer);
        }
    }

    /// Bytes of the answers that are kept.
    pub(crate) fn remembered_bytes(&self) -> usize {
        self.answers.bytes()
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session<S>> {
        self.sessions.get(&key)
    }

    /// The sessions of a stream, in no order.
    pub(crate) fn of_stream(&self, stream: u64) -> impl Iterator<Item = SessionKey> {
        self.sessions.keys().copied().filter(move |key| key.stream == stream)
    }

    /// Takes a session out, to close it.
    pub(crate) fn take(&mut self, key: SessionKey) -> Option<Session<S>> {
        self.answers.forget(key);
        self.sessions.remove(&key)
    }

    /// Lends a session out, to compute its next step; it comes back ([`SessionTable::put`]) or is closed. Its last answer waits
    /// for the one that takes its place.
    pub(crate) fn lend(&mut self, key: SessionKey) -> Option<Session<S>> {
        self.sessions.remove(&key)
    }

    /// Puts a session back that was lent out.
    pub(crate) fn put(&mut self, key: SessionKey, session: Session<S>) {
        self.sessions.insert(key, session);
    }

    /// Drops all sessions.
    pub(crate) fn clear(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.drain().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.answers.forget(key));
        self.next_expiry = None;
    }

    pub(crate) fn close_stream(&mut self, stream: u64) {
        self.sessions.retain(|&key, _| {
            let keep = key.stream != stream;
            if !keep {
                self.answers.forget(key);
            }
            keep
        });
    }

    /// Drops the sessions that have been idle for longer than the time-to-live, except busy ones.
    pub(crate) fn expire(&mut self, now: Instant, is_busy: impl Fn(SessionKey) -> bool) {
        if self.next_expiry.is_none_or(|next_expiry| now < next_expiry) {
            return;
        }
        let ttl = self.ttl;
        self.sessions.retain(|&key, session| {
            let keep = is_busy(key) || now.saturating_duration_since(session.last_used) <= ttl;
            if !keep {
                self.answers.forget(key);
                tracing::debug!(stream = key.stream, session = key.session, "session expired");
            }
            keep
        });
        // A busy session has its time-to-live before it, whenever it was used last.
        let used =
            |(key, session): (&SessionKey, &Session<S>)| if is_busy(*key) { now } else { session.last_used };
        let oldest = self.sessions.iter().map(used).min();
        self.next_expiry = oldest.and_then(|oldest| self.expiry(oldest));
    }

    /// When [`SessionTable::expire`] has something to look at again; none without sessions.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// The first moment at which a session has been idle for longer than the time-to-live.
    fn expiry(&self, last_used: Instant) -> Option<Instant> {
        last_used.checked_add(self.ttl)?.checked_add(Duration::from_nanos(1))
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Ask, Real, Rows};

    const TTL: Duration = Duration::from_secs(10);
    /// For all answers of a test.
    const ROOM: usize = 1 << 10;

    fn key(stream: u64, session: u64) -> SessionKey {
        SessionKey { stream, session }
    }

    fn rows(rows: Rows) -> Ask {
        Ask::Logits { rows, format: v1::RowFormat::F32 }
    }

    fn feed(step: u64) -> Feed {
        Feed::new(step, vec![4, 5], rows(Rows::Next))
    }

    fn idle(_: SessionKey) -> bool {
        false
    }

    #[test]
    fn a_session_expires_after_its_time_to_live_and_not_before() {
        let start = Instant::now();
        let mut table = SessionTable::new(8, TTL, ROOM);
        table.expire(start, idle);
        table.open(key(1, 1), (), 0, start);
        table.open(key(1, 2), (), 0, start + TTL / 2);
        table.expire(start + TTL, idle);
        assert_eq!(table.len(), 2, "idle for exactly the time-to-live is not longer than it");
        table.expire(start + TTL + Duration::from_millis(1), idle);
        assert_eq!(table.len(), 1);
        let failure = table.check_step(key(1, 1), &feed(1), start + TTL).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::UnknownSession);
        assert!(failure.message.contains("idle for more than 10 seconds"), "{}", failure.message);
        table.expire(start + TTL * 3 / 2 + Duration::from_millis(1), idle);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_next_expiry_is_when_a_look_drops_the_session_that_was_idle_longest() {
        let start = Instant::now();
        let mut table = SessionTable::new(8, TTL, ROOM);
        assert_eq!(table.next_expiry(), None);
        table.open(key(1, 1), (), 0, start);
        table.open(key(1, 2), (), 0, start + TTL / 2);
        for left in [1, 0] {
            table.expire(table.next_expiry().unwrap() - Duration::from_nanos(1), idle);
            assert_eq!(table.len(), left + 1);
            table.expire(table.next_expiry().unwrap(), idle);
            assert_eq!(table.len(), left);
        }
        assert_eq!(table.next_expiry(), None);
    }

    #[test]
    fn a_look_that_finds_all_sessions_renewed_sets_a_later_next_expiry() {
        let start = Instant::now();
        let mut table = SessionTable::new(8, TTL, ROOM);
        table.open(key(1, 1), (), 0, start);
        let first = table.next_expiry().unwrap();
        table.check_step(key(1, 1), &feed(1), start + TTL / 2).unwrap();
        table.expire(first, idle);
        assert_eq!((table.len(), table.next_expiry()), (1, Some(first + TTL / 2)));
    }

    #[test]
    fn use_renews_a_session_and_work_keeps_it() {
        let start = Instant::now();
        let mut table = SessionTable::new(8, TTL, ROOM);
        for session in [1, 2, 3] {
            table.open(key(1, session), (), 0, start);
        }
        table.check_step(key(1, 1), &feed(1), start + TTL).unwrap();
        table.expire(start + TTL + TTL / 2, |busy| busy == key(1, 2));
        assert!(table.take(key(1, 1)).is_some(), "used");
        assert!(table.take(key(1, 2)).is_some(), "busy");
        assert!(table.take(key(1, 3)).is_none(), "idle");
    }

    #[test]
    fn a_full_table_takes_only_replacements() {
        let now = Instant::now();
        let mut table = SessionTable::new(1, TTL, ROOM);
        table.open(key(1, 1), (), 0, now);
        assert_eq!(table.check_room(key(1, 1)), Ok(()));
        let failure = table.check_room(key(2, 1)).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::ResourceExhausted);
        table.close_stream(1);
        assert_eq!(table.check_room(key(2, 1)), Ok(()));
    }

    #[test]
    fn only_the_last_and_the_next_step_mean_something() {
        let now = Instant::now();
        let mut table = SessionTable::new(1, TTL, ROOM);
        table.open(key(1, 1), (), 0, now);
        assert!(table.check_step(key(1, 1), &feed(0), now).is_err(), "there is no step 0 to repeat");
        assert!(table.check_step(key(1, 1), &feed(2), now).is_err());
        assert_eq!(table.check_step(key(1, 1), &feed(1), now), Ok(Step::Next));
        let answer = v1::answer::Answer::Advanced(v1::Advanced {});
        table.remember(key(1, 1), &feed(1), answer.clone(), now);
        assert_eq!(table.check_step(key(1, 1), &feed(1), now), Ok(Step::Repeated(answer)));
        assert_eq!(table.check_step(key(1, 1), &feed(2), now), Ok(Step::Next));
        let failure = table.check_step(key(1, 1), &feed(3), now).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::StepOutOfOrder);
        assert_eq!(failure.message, "feed.step of session 1 is 3, allowed are 1 (repeated) and 2");
    }

    #[test]
    fn a_repeated_step_whose_answer_had_to_make_room_is_refused_and_the_next_one_is_not() {
        let now = Instant::now();
        let answer = v1::answer::Answer::Targets(v1::Targets { log_probs: vec![0.5; 10] });
        let mut table = SessionTable::new(2, TTL, answer.encoded_len());
        for session in [1, 2] {
            table.open(key(1, session), (), 0, now);
            table.remember(key(1, session), &feed(1), answer.clone(), now);
        }
        let failure = table.check_step(key(1, 1), &feed(1), now).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::StepOutOfOrder);
        assert_eq!(
            failure.message,
            "feed.step of session 1 is 1 (repeated), but its answer is no longer kept; allowed is 2"
        );
        let failure = table.check_step(key(1, 1), &feed(3), now).unwrap_err();
        assert_eq!(failure.message, "feed.step of session 1 is 3, allowed is 2");
        assert_eq!(table.check_step(key(1, 1), &feed(2), now), Ok(Step::Next));
        assert_eq!(table.check_step(key(1, 2), &feed(1), now), Ok(Step::Repeated(answer)));
    }

    #[test]
    fn a_repeated_step_is_answered_only_where_it_is_the_same_feed() {
        let now = Instant::now();
        let answer = v1::answer::Answer::Advanced(v1::Advanced {});
        let mut table = SessionTable::new(1, TTL, ROOM);
        table.open(key(1, 1), (), 0, now);
        table.remember(key(1, 1), &feed(1), answer.clone(), now);
        let others = [
            Feed { tokens: vec![5, 4], ..feed(1) },
            Feed { tokens: vec![], ..feed(1) },
            Feed { ask: rows(Rows::Each), ..feed(1) },
            Feed { ask: Ask::Draw { uniform: Real::new(0.5).unwrap() }, ..feed(1) },
        ];
        for other in others {
            let failure = table.check_step(key(1, 1), &other, now).unwrap_err();
            assert_eq!(failure.code(), v1::ErrorCode::InvalidArgument, "{other:?}");
            assert!(failure.message.contains("other tokens or another ask"), "{}", failure.message);
        }
        assert_eq!(table.check_step(key(1, 1), &feed(1), now), Ok(Step::Repeated(answer)));
        assert_eq!(table.check_step(key(1, 1), &feed(2), now), Ok(Step::Next));
    }

    #[test]
    fn a_busy_session_makes_nobody_look_again_before_its_time() {
        let start = Instant::now();
        let mut table = SessionTable::new(1, TTL, ROOM);
        table.open(key(1, 1), (), 0, start);
        table.expire(start + 3 * TTL, |_| true);
        assert!(table.next_expiry().unwrap() > start + 4 * TTL);
        table.expire(start + 5 * TTL, idle);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_answer_goes_with_its_session() {
        let start = Instant::now();
        let end: [fn(&mut SessionTable<()>, Instant); 7] = [
            |table, _| {
                // Its next step fails.
                assert!(table.lend(key(1, 1)).is_some());
                assert!(table.take(key(1, 1)).is_none());
            },
            |table, _| {
                let session = table.lend(key(1, 1)).unwrap();
                table.put(key(1, 1), session);
                table.close_stream(1);
            },
            |table, _| assert!(table.take(key(1, 1)).is_some()),
            |table, _| table.close_stream(1),
            |table, start| table.expire(start + TTL * 2, idle),
            |table, start| table.open(key(1, 1), (), 0, start),
            |table, _| table.clear(),
        ];
        for end in end {
            let mut table = SessionTable::new(1, TTL, ROOM);
            table.open(key(1, 1), (), 0, start);
            table.remember(key(1, 1), &feed(1), v1::answer::Answer::Advanced(v1::Advanced {}), start);
            assert!(table.answers.get(key(1, 1)).is_some());
            end(&mut table, start);
            assert!(table.answers.get(key(1, 1)).is_none());
        }
    }
}
