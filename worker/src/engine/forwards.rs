//! Forwards: from the jobs that are next in their lines to their answers. A predictor that computes beside us has one under way
//! while the answers of the one before are taken in.
//!
//! Knows nothing about how operations came to be jobs, nor when a forward is to begin.

use chorus_proto::v1::Failure;
use tokio::time::Instant;

use super::{Engine, Reply};
use crate::{
    failure,
    forward::{Forward, Share},
    operation::SessionKey,
    predictor::{Prediction, Predictor, guard},
    sessions::Session,
};

/// What became of the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// There is nothing to compute.
    Nothing,
    /// The model failed, which is answered.
    Failed,
    /// So many tokens were computed, and are answered.
    Computed { tokens: usize },
    /// The device is at so many tokens; [`Engine::collect`] answers.
    UnderWay { tokens: usize },
    /// It can't begin before everything that is under way is collected, and waits in its lines.
    Blocked,
}

impl<P: Predictor> Engine<P> {
    /// Begins a forward over the next chunk of as many sessions as fit, and where nobody but us computes it, ends it.
    pub(crate) fn begin(&mut self, now: Instant, replies: &mut Vec<Reply>) -> Begun {
        let (mut shares, mut sessions, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (key, job, tokens) in self.batcher.next_batch(self.pace.tokens()) {
            let expired = job.expired(now);
            let session = if expired.is_some() { self.sessions.take(key) } else { self.sessions.lend(key) };
            let failure = match (session, expired) {
                (Some(session), None) => {
                    shares.push(Share::new(key, job, tokens, session.position));
                    sessions.push(session);
                    continue;
                }
                // Whoever asked has given the session up.
                (Some(_), Some(timeout)) => failure::late(key.session, timeout),
                // A session with a job is never closed and never expires before the job is done.
                (None, _) => {
                    self.sessions.take(key);
                    failure::internal("the session is gone")
                }
            };
            replies.push(Reply::failed(key, job.step(), failure, job.abandon()));
            self.batcher.done(key);
            over.push(key);
        }
        let begun = match shares.is_empty() {
            true => Begun::Nothing,
            false => self.forward(Forward::new(shares), sessions, now, replies),
        };
        self.release(over, now, replies);
        begun
    }

    /// Begins a forward of these sessions, which come back at once, and ends it where the predictor does not compute beside us.
    fn forward(
        &mut self,
        mut forward: Forward,
        mut sessions: Vec<Session<P::State>>,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Begun {
        let tokens = forward.tokens();
        let may_be_helped = self.may_be_helped(&forward);
        let _span = tracing::debug_span!("forward", sessions = sessions.len(), tokens).entered();
        forward.trace_begin();
        let (mut rows, mut intakes) = forward.rows(&mut sessions);
        let submitted = guard(|| self.predictor.submit(&mut rows));
        let is_blocked = submitted == Ok(false) && !self.under_way.is_empty();
        let computed = match submitted {
            Ok(false) if !is_blocked => Some(guard(|| {
                let receive = &mut |prediction: Prediction<'_>| intakes.receive(&prediction);
                if may_be_helped {
                    self.predictor.forward_with_help(&mut rows, receive)
                } else {
                    self.predictor.forward(&mut rows, receive)
                }
            })),
            Ok(_) => None,
            Err(failure) => Some(Err(failure)),
        };
        let results = computed.as_ref().map(|computed| intakes.finish(computed));
        // All are back and counted before anybody goes on.
        for (share, mut session) in forward.shares().zip(sessions) {
            session.position += if is_blocked { 0 } else { share.tokens as u64 };
            self.sessions.put(share.key, session);
        }
        if is_blocked {
            self.batcher.put_back(forward.into_jobs());
            return Begun::Blocked;
        }
        forward.jobs().filter_map(|job| job.waited(now)).for_each(|wait| self.metrics.waited(wait));
        self.metrics.batch(forward.shares().len(), tokens);
        let Some(results) = results else {
            self.under_way.push_back(forward);
            return Begun::UnderWay { tokens };
        };
        self.end(forward, results, now, replies);
        if computed.is_some_and(|computed| computed.is_ok()) {
            Begun::Computed { tokens }
        } else {
            Begun::Failed
        }
    }

    /// Whether processors that have nothing else to do are welcome: for next tokens, with a prompt here and there, behind which
    /// nothing waits. Where something does, they have enough to do of their own; and the many small steps of a long
    /// text wait for their helpers more than they are helped.
    fn may_be_helped(&self, forward: &Forward) -> bool {
        forward.tokens() <= 2 * forward.shares().len() && !self.batcher.has_jobs()
    }

    /// Whether a session that is under way has more to compute: with what it has found taken in, it may be in the next forward.
    pub(crate) fn goes_on(&self) -> bool {
        self.under_way.iter().any(|forward| {
            forward.goes_on() || forward.shares().any(|share| self.batcher.has_feed_waiting(share.key))
        })
    }

    /// Waits until everything that is under way is computed. A device that fails is found out when it is collected.
    pub(crate) fn wait(&mut self) {
        let _ = guard(|| self.predictor.wait());
    }

    /// Ends the forward that has been under way for the longest time, and answers what it was for.
    pub(crate) fn collect(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        let Some(mut forward) = self.under_way.pop_front() else { return };
        let mut intakes = forward.intakes();
        let computed = guard(|| self.predictor.collect(&mut |prediction| intakes.receive(&prediction)));
        let results = intakes.finish(&computed);
        self.end(forward, results, now, replies);
    }

    /// The same for all.
    pub(crate) fn collect_all(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        while !self.under_way.is_empty() {
            self.collect(now, replies);
        }
    }

    /// One forward from its beginning to its end.
    #[cfg(test)]
    pub(crate) fn run_batch(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        self.begin(now, replies);
        self.collect_all(now, replies);
    }

    /// Answers the jobs of a forward that is over, or lines them up for their next ones.
    fn end(
        &mut self,
        forward: Forward,
        results: Vec<Result<(), Failure>>,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) {
        self.suspect_after(&results, now);
        let mut ended = Vec::with_capacity(results.len());
        for (key, job, result) in forward.computed(results) {
            match result {
                Ok(()) if !job.is_complete() => self.batcher.enqueue(key, job),
                Ok(()) => {
                    self.finish(key, job, now, replies);
                    ended.push(key);
                }
                Err(failure) => {
                    // The state can't be trusted any more, so the session ends.
                    let (stream, session) = (key.stream, key.session);
                    tracing::warn!(stream, session, failure.message, "session failed");
                    self.sessions.take(key);
                    replies.push(Reply::failed(key, job.step(), failure, job.abandon()));
                    ended.push(key);
                }
            }
        }
        self.release(ended, now, replies);
    }

    /// These sessions have no job any more: they go on with what waited behind it.
    fn release(&mut self, keys: Vec<SessionKey>, now: Instant, replies: &mut Vec<Reply>) {
        // First all of them: what waited may be about another one.
        keys.iter().for_each(|key| self.batcher.done(*key));
        for key in keys {
            self.settle(key, now, replies);
        }
        self.count();
    }
}
