//! The worker's core: operations go in, answers come out, and in between many sessions share one forward.
//!
//! Sans-IO: it owns the model and is called; time is an argument. Knows nothing about threads, channels or gRPC.

use std::{
    collections::VecDeque,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    batcher::{BatchLimits, Batcher, Waiting},
    condition::Condition,
    credit::Credit,
    failure,
    forward::Forward,
    job::{Finished, Job},
    operation::{Feed, Operation, Origin, SessionKey},
    pace::Pace,
    predictor::{Predictor, guard},
    probe::Golden,
    sessions::{SessionTable, Step},
    snapshot,
    soundness::Soundness,
    telemetry::EngineMetrics,
};
use chorus_proto::v1::{self, ErrorCode, Failure};

pub(crate) use forwards::Begun;

/// Bytes of answers that are kept for repeated steps, over all sessions: two of the largest answers, or one row of
/// 16,000 logits for each of 1,000 sessions.
const REMEMBERED_BYTES: usize = 64 << 20;

/// An answer on its way to its stream.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) stream: u64,
    pub(crate) answer: v1::Answer,
    /// Held until the answer is handed to the connection.
    pub(crate) credit: Credit,
}

/// Sessions, what they wait for, and the model that computes it.
#[derive(Debug)]
pub(crate) struct Engine<P: Predictor> {
    predictor: P,
    /// Tells whose snapshots can be continued here.
    model_fingerprint: String,
    sessions: SessionTable<P::State>,
    batcher: Batcher,
    /// What the device is at or has computed, the oldest first. The sessions stand behind it already, and are busy.
    under_way: VecDeque<Forward>,
    pace: Pace,
    open_sessions: Arc<AtomicU32>,
    /// What the device must be able to compute at any time; without it nothing is ever probed.
    golden: Option<Golden>,
    soundness: Soundness,
    metrics: EngineMetrics,
}

impl<P: Predictor> Engine<P> {
    pub(crate) fn new(
        predictor: P,
        model_fingerprint: String,
        max_sessions: usize,
        ttl: Duration,
        limits: BatchLimits,
    ) -> Self {
        let batcher = Batcher::new(limits, predictor.vocabulary_size());
        let sessions = SessionTable::new(max_sessions, ttl, REMEMBERED_BYTES);
        let pace = Pace::new(limits.duration, limits.tokens);
        Self {
            predictor,
            model_fingerprint,
            sessions,
            batcher,
            under_way: VecDeque::new(),
            pace,
            open_sessions: Arc::default(),
            golden: None,
            soundness: Soundness::default(),
            metrics: EngineMetrics::new(),
        }
    }

    /// Has the device read the golden sequence after each `interval` (none: where something went wrong), the first time
    /// so long from `now`.
    pub(crate) fn probed(self, golden: Golden, interval: Option<Duration>, now: Instant) -> Self {
        Self { golden: Some(golden), soundness: Soundness::new(interval, now), ..self }
    }

    /// How many sessions there are, counted anew after every operation and every forward.
    pub(crate) fn open_sessions(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.open_sessions)
    }

    fn count(&self) {
        let open = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        self.open_sessions.store(open, Ordering::Relaxed);
        let (waiting, remembered) = (self.batcher.jobs(), self.sessions.remembered_bytes());
        self.metrics.standing(self.sessions.len(), waiting, remembered);
    }

    /// Whether [`Engine::begin`] has anything to do.
    pub(crate) fn has_work(&self) -> bool {
        self.batcher.has_jobs()
    }

    /// Whether there is something to compute before anybody asks for it.
    pub(crate) fn has_early_work(&self) -> bool {
        self.predictor.has_early_work() && !self.is_suspected() && self.condition().reason().is_none()
    }

    /// Computes a part of it, for a time when nobody waits. How long that took.
    pub(crate) fn compute_early(&mut self) -> Duration {
        if !self.has_early_work() {
            return Duration::ZERO;
        }
        let start = Instant::now();
        // What is not there is computed when it is asked for; the log has the reason.
        let _ = guard(|| self.predictor.compute_early());
        let took = start.elapsed();
        self.metrics.computed_early(took);
        took
    }

    /// How many forwards there are for [`Engine::collect`].
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// As [`Engine::take_in`], of an operation that was read just now.
    #[cfg(test)]
    pub(crate) fn apply(
        &mut self,
        key: SessionKey,
        operation: Operation,
        credit: Credit,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) {
        self.take_in(key, Waiting { operation, credit, since: now }, now, replies);
    }

    /// Takes an operation in. Answers that need no model come at once.
    pub(crate) fn take_in(
        &mut self,
        key: SessionKey,
        waiting: Waiting,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) {
        let Waiting { operation, credit, since } = waiting;
        if let Some(reason) = self.soundness.condition().reason() {
            let failure = failure::unsound(reason);
            return replies.extend(Reply::refused(key, &operation, failure, credit));
        }
        self.expire(now);
        if operation == (Operation::Close { discard: true }) {
            self.discard(key, replies);
        }
        if let Operation::Feed(feed) = &operation {
            self.metrics.fed(&feed.ask);
        }
        match self.batcher.push(key, Waiting { operation, credit, since }) {
            Some(waiting) => self.work_off(key, waiting, now, replies),
            None => self.settle(key, now, replies),
        }
        self.count();
    }

    /// When there is something to do if no operation comes before: sessions to [`Engine::expire`], or a probe to run.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let probe = self.golden.as_ref().and(self.soundness.due());
        [self.sessions.next_expiry(), probe].into_iter().flatten().min()
    }

    /// What is known of the device.
    pub(crate) fn condition(&self) -> &Condition {
        self.soundness.condition()
    }

    /// Whether [`Engine::probe`] is due.
    pub(crate) fn is_probe_due(&self, now: Instant) -> bool {
        self.golden.is_some() && self.soundness.is_due(now)
    }

    /// Whether something went wrong since the last probe, so that what the device has found meanwhile waits for the next one.
    pub(crate) fn is_suspected(&self) -> bool {
        self.golden.is_some() && self.soundness.is_suspected()
    }

    /// Has the device read the golden sequence, which touches no session. One that fails loses them all, and what was under
    /// way is not answered with what it has found.
    pub(crate) fn probe(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        let mut found = Vec::new();
        self.collect_all(now, &mut found);
        let Some(golden) = &self.golden else {
            return replies.append(&mut found);
        };
        match golden.probe(&mut self.predictor) {
            Ok(_) => {
                self.metrics.probed(true);
                replies.append(&mut found);
                if self.soundness.passed(now) {
                    tracing::info!("the device is sound again");
                }
            }
            Err(fault) => {
                let reason = fault.to_string();
                self.metrics.probed(false);
                let failure = failure::unsound(&reason);
                replies.extend(found.into_iter().map(|reply| reply.instead(&failure)));
                if self.soundness.failed(&reason, now) {
                    tracing::error!(reason, "the device is not sound");
                    self.drop_everything(replies);
                } else {
                    tracing::debug!(reason, "the device is still not sound");
                }
            }
        }
    }

    /// Takes in that somebody else found the device out of order. It is back once it has passed its probes.
    pub(crate) fn found_unsound(&mut self, reason: Arc<str>, now: Instant, replies: &mut Vec<Reply>) {
        if self.soundness.found_unsound(reason, now) {
            self.drop_everything(replies);
        }
    }

    /// States of a device that is not sound can't be trusted: all sessions end, and whatever waits is answered.
    fn drop_everything(&mut self, replies: &mut Vec<Reply>) {
        self.sessions.clear();
        self.count();
        let Some(reason) = self.soundness.condition().reason() else {
            return;
        };
        let failure = failure::unsound(reason);
        for (key, job) in self.under_way.iter_mut().flat_map(Forward::give_up_all) {
            replies.push(Reply::failed(key, job.step(), failure.clone(), job.abandon()));
        }
        for (key, job, waiting) in self.batcher.discard_all() {
            replies.extend(job.map(|job| Reply::failed(key, job.step(), failure.clone(), job.abandon())));
            for Waiting { operation, credit, .. } in waiting {
                replies.extend(Reply::refused(key, &operation, failure.clone(), credit));
            }
        }
    }

    /// Drops the sessions that have been idle for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.sessions.expire(now, |key| self.batcher.is_busy(key));
        self.count();
    }

    /// Drops a stream's sessions and what they wait for; nothing of it is answered.
    pub(crate) fn end_stream(&mut self, stream: u64) {
        self.batcher.discard_stream(stream);
        self.under_way.iter_mut().for_each(|forward| forward.give_up_stream(stream));
        self.sessions.close_stream(stream);
        self.count();
    }

    /// A model that fails or answers no numbers may have met an input that it can't take, or its device is out of order: the
    /// next probe tells.
    fn suspect_after(&mut self, results: &[Result<(), Failure>], now: Instant) {
        let is_suspicious =
            |failure: &Failure| matches!(failure.code(), ErrorCode::NotFinite | ErrorCode::Internal);
        if results.iter().filter_map(|result| result.as_ref().err()).any(is_suspicious) {
            self.soundness.suspect(now);
        }
    }

    /// Every session of a stream that has read anything, as it stands. Those with a job under way are not settled yet.
    pub(crate) fn hand_over(&self, stream: u64) -> Vec<v1::Handover> {
        let keys = self.sessions.of_stream(stream).filter(|key| !self.batcher.is_busy(*key));
        let handover = |key: SessionKey| {
            // Whoever asked goes without one; the log has the reason.
            let snapshot = self.snapshot(key).ok().flatten().filter(|snapshot| snapshot.position > 0);
            Some(v1::Handover { session: key.session, snapshot: Some(snapshot?) })
        };
        let mut handovers: Vec<_> = keys.filter_map(handover).collect();
        handovers.sort_unstable_by_key(|handover| handover.session);
        handovers
    }

    /// A session as it stands; none where it is gone.
    fn snapshot(&self, key: SessionKey) -> Result<Option<v1::Snapshot>, Failure> {
        let Some(session) = self.sessions.get(key) else { return Ok(None) };
        let state = guard(|| self.predictor.snapshot(&session.state))?;
        self.metrics.snapshot(state.len());
        Ok(Some(snapshot::seal(&self.model_fingerprint, session.position, state)))
    }

    /// Counts a forward that took so long.
    pub(crate) fn note_forward(&self, took: Duration) {
        self.metrics.ran(took);
    }

    /// Takes in how long a forward of so many tokens took: the next ones follow.
    pub(crate) fn note_pace(&mut self, tokens: usize, took: Duration) {
        self.pace.note(tokens, took);
    }

    /// Works off what a session has waiting, up to the first feed that needs the model.
    fn settle(&mut self, key: SessionKey, now: Instant, replies: &mut Vec<Reply>) {
        while let Some(waiting) = self.batcher.next(key) {
            self.work_off(key, waiting, now, replies);
        }
    }

    /// Works one operation off, before which the session has none; a feed that needs the model is in line after it.
    fn work_off(&mut self, key: SessionKey, waiting: Waiting, now: Instant, replies: &mut Vec<Reply>) {
        let Waiting { operation, credit, since } = waiting;
        match operation {
            Operation::Open(origin) => {
                let opened = self.open(key, origin, now);
                self.suspect_after(std::slice::from_ref(&opened), now);
                if let Err(failure) = opened {
                    replies.push(Reply::failed(key, 0, failure, credit));
                }
            }
            Operation::Close { .. } => drop(self.sessions.take(key)),
            Operation::Feed(feed) => self.start(key, Job::new(feed, credit, since), now, replies),
        }
    }

    fn open(&mut self, key: SessionKey, origin: Origin, now: Instant) -> Result<(), Failure> {
        self.sessions.check_room(key)?;
        let (state, position) = match origin {
            Origin::Start => (guard(|| self.predictor.fresh_state())?, 0),
            Origin::Snapshot(snapshot) => self.restored(key, *snapshot)?,
            Origin::Fork(other) => self.forked(key, SessionKey { session: other, ..key })?,
        };
        self.sessions.open(key, state, position, now);
        Ok(())
    }

    fn restored(&mut self, key: SessionKey, snapshot: v1::Snapshot) -> Result<(P::State, u64), Failure> {
        let position = snapshot.position;
        let unusable = |reason: &dyn Display| failure::unusable_snapshot(key.session, reason);
        let state = snapshot::open(snapshot, &self.model_fingerprint).map_err(|error| unusable(&error))?;
        // What is wrong with a state is its sender's mistake, not the model's.
        let restored = guard(|| self.predictor.restore(&state))?;
        Ok((restored.map_err(|error| unusable(&error))?, position))
    }

    fn forked(&mut self, key: SessionKey, other: SessionKey) -> Result<(P::State, u64), Failure> {
        if self.batcher.is_busy(other) {
            return Err(failure::fork_of_busy(key.session, other.session));
        }
        let unknown = || failure::fork_of_unknown(key.session, other.session);
        let session = self.sessions.get(other).ok_or_else(unknown)?;
        Ok((guard(|| self.predictor.fork(&session.state))?, session.position))
    }

    fn start(&mut self, key: SessionKey, job: Job, now: Instant, replies: &mut Vec<Reply>) {
        match self.sessions.check_step(key, job.feed(), now) {
            Ok(Step::Next) => self.proceed(key, job, now, replies),
            Ok(Step::Repeated(answer)) => {
                let (feed, credit) = job.give_back();
                self.reply(key, (&feed, credit), answer, now, replies);
            }
            Err(failure) => {
                replies.push(Reply::failed(key, job.step(), failure, job.abandon()));
            }
        }
    }

    /// Answers a feed after which the session stands where it does.
    fn reply(
        &mut self,
        key: SessionKey,
        (feed, credit): (&Feed, Credit),
        answer: v1::answer::Answer,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) {
        let snapshot = if feed.snapshot { self.snapshot(key) } else { Ok(None) };
        // Whoever asked goes without one; the log has the reason.
        self.suspect_after(&[snapshot.as_ref().map(drop).map_err(Failure::clone)], now);
        let snapshot = snapshot.ok().flatten();
        let answer = v1::Answer { session: key.session, step: feed.step, answer: Some(answer), snapshot };
        replies.push(Reply { stream: key.stream, answer, credit });
    }

    /// Answers a job that is complete, else lines it up for its next forward.
    fn proceed(&mut self, key: SessionKey, job: Job, now: Instant, replies: &mut Vec<Reply>) {
        if job.is_complete() {
            self.finish(key, job, now, replies);
        } else {
            self.batcher.enqueue(key, job);
        }
    }

    fn finish(&mut self, key: SessionKey, job: Job, now: Instant, replies: &mut Vec<Reply>) {
        let Finished { feed, answer, credit } = job.finish();
        self.sessions.remember(key, &feed, answer.clone(), now);
        self.reply(key, (&feed, credit), answer, now, replies);
    }

    /// Ends what a session has under way and waiting: each feed is answered as cancelled, in order.
    fn discard(&mut self, key: SessionKey, replies: &mut Vec<Reply>) {
        let computing = self.under_way.iter_mut().find_map(|forward| forward.give_up(key));
        let (in_line, waiting) = self.batcher.discard(key);
        let failure = failure::discarded(key.session);
        if let Some(job) = computing.or(in_line) {
            replies.push(Reply::failed(key, job.step(), failure.clone(), job.abandon()));
        }
        for Waiting { operation, credit, .. } in waiting {
            if let Operation::Feed(feed) = operation {
                replies.push(Reply::failed(key, feed.step, failure.clone(), credit));
            }
        }
    }
}

impl Reply {
    fn failed(key: SessionKey, step: u64, failure: Failure, credit: Credit) -> Self {
        Self { stream: key.stream, answer: failure::answer(key.session, step, failure), credit }
    }

    /// The same session's step, answered by a failure.
    fn instead(self, failure: &Failure) -> Self {
        let v1::Answer { session, step, .. } = self.answer;
        Self { answer: failure::answer(session, step, failure.clone()), ..self }
    }

    /// The failure of an operation, unless it is one that is not answered.
    pub(crate) fn refused(
        key: SessionKey,
        operation: &Operation,
        failure: Failure,
        credit: Credit,
    ) -> Option<Self> {
        let step = match operation {
            Operation::Open(_) => 0,
            Operation::Feed(feed) => feed.step,
            Operation::Close { .. } => return None,
        };
        Some(Self::failed(key, step, failure, credit))
    }
}

mod forwards;

#[cfg(test)]
mod fork_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod halves_tests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;
