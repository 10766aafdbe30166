//! [`MemberSession`]: a session at one member, on whichever of its replicas. When one is lost, another goes on from the last
//! snapshot and the tokens since; when one takes long, another is asked too.
//!
//! Knows nothing about the other members.

use std::future::{pending, poll_fn};
use std::mem::take;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::alarm::Alarm;
use super::sitting::{MAX_FEED_TOKENS, Reading, Sitting};
use super::terms::{Patience, SessionTerms};
use super::transcript::Transcript;
use crate::member::{Counted, Member, Seat};
use crate::plan::Ask;
use crate::replica::{Answer, ReplicaError};
use crate::snapshot::Snapshot;

/// Feeds of more tokens say nothing about how long a step takes.
const SHORT_FEED: usize = 8;

/// A session that a member takes part in, wherever it is open now.
pub(crate) struct MemberSession {
    member: Arc<Member>,
    terms: SessionTerms,
    sitting: Option<Box<Sitting>>,
    /// Where it is taken up again while it is open nowhere.
    snapshot: Option<Snapshot>,
    /// The replica that was asked last.
    asked: Option<Arc<Seat>>,
    /// Tokens that some replica has answered about.
    read: usize,
    /// Wakes a step that takes long.
    alarm: Alarm,
    _counted: Counted,
}

/// How one replica's reading went.
type Read = (Box<Sitting>, Result<Answer, ReplicaError>);

impl MemberSession {
    /// Open nowhere yet: the first reading opens it, where this was taken. In a box, since it goes from step to step.
    pub(super) fn new(member: &Arc<Member>, terms: SessionTerms, snapshot: Option<Snapshot>) -> Box<Self> {
        Box::new(Self {
            member: Arc::clone(member),
            terms,
            sitting: None,
            snapshot,
            asked: None,
            read: 0,
            alarm: Alarm::default(),
            _counted: Counted::new(&member.sessions),
        })
    }

    /// Another session of the member, where this one stands. Where this one is open nowhere, the other begins at the last
    /// snapshot, too.
    pub(super) fn fork(&self) -> Box<Self> {
        Box::new(Self {
            member: Arc::clone(&self.member),
            sitting: self.sitting.as_ref().map(|sitting| sitting.fork(self.member.next_session())),
            snapshot: self.snapshot.clone(),
            asked: self.asked.clone(),
            alarm: Alarm::default(),
            _counted: Counted::new(&self.member.sessions),
            ..*self
        })
    }

    /// Opens it at a replica, so that what the replica allows is known.
    ///
    /// # Errors
    /// No replica is up, or the one that was chosen speaks another vocabulary.
    pub(super) fn open(&mut self, transcript: &Transcript) -> Result<(), ReplicaError> {
        if self.sitting.is_none() {
            self.sitting = Some(self.sit(transcript, &[])?);
        }
        Ok(())
    }

    /// Tokens that the member has read, as far as they are not lost.
    pub(super) fn position(&self) -> usize {
        match &self.sitting {
            Some(sitting) => sitting.position(),
            None => self.snapshot.as_ref().map_or(0, Snapshot::position),
        }
    }

    /// The most tokens of one feed with this ask.
    pub(super) fn max_feed_tokens(&self, ask: &Ask) -> usize {
        self.sitting.as_ref().map_or(MAX_FEED_TOKENS, |sitting| sitting.max_feed_tokens(ask))
    }

    /// Reads the transcript up to the end of the step and asks about it, on the replica that has the session or, where that
    /// fails, on others.
    ///
    /// # Errors
    /// What the first of the replicas says that were tried, if none could answer (a refusal only where no other says anything
    /// else); that it is late; that nothing has come from any of them for long.
    pub(super) async fn advance(
        &mut self,
        transcript: &Transcript,
        step: Range<usize>,
        ask: Ask,
    ) -> Result<Answer, ReplicaError> {
        let fed = step.end.saturating_sub(self.position());
        // Where there is another replica, it may have to read from the last snapshot on.
        let has_others = self.member.seats().len() > 1;
        let most = if has_others { step.end.saturating_sub(self.snapshot_position()) } else { fed };
        let (start, patience) = (Instant::now(), self.terms.patience.for_tokens(most));
        let until = start + patience;
        let reading = Reading {
            step,
            ask,
            until: self.terms.deadline.map_or(until, |at| at.min(until)),
            traced: self.terms.is_traced.then(|| Arc::clone(&self.member)),
        };
        let silence = self.silence_of_all(most);
        let member = Arc::clone(&self.member);
        let mut alarm = take(&mut self.alarm);
        let answer = self.on_any_replica(transcript, &reading);
        let answer = in_time(&mut alarm, start, until, &member, silence, answer).await;
        self.alarm = alarm;
        let answer = answer.ok_or(ReplicaError::Late { milliseconds: patience.as_millis() }).flatten();
        // Where it was open it was closed with the future that was dropped.
        if let (Err(ReplicaError::Late { .. }), Some(seat)) = (&answer, &self.asked) {
            seat.replica.late();
        }
        let answer = answer?;
        self.read = self.read.max(reading.step.end);
        if fed <= SHORT_FEED {
            let took = start.elapsed();
            self.member.hedging.answered(took);
            self.member.counts.answer.record(took.as_secs_f64());
        }
        Ok(answer)
    }

    /// Says that an answer which looked sound was not.
    pub(super) fn discredit(&self) {
        if let Some(sitting) = &self.sitting {
            sitting.seat().replica.discredit();
        }
    }

    /// The member whose session it is.
    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Reads one feed's worth of what is there, or less.
    pub(super) async fn catch_up(&mut self, transcript: &Transcript) -> Result<(), ReplicaError> {
        self.open(transcript)?;
        let end = transcript.len().min(self.position() + self.max_feed_tokens(&Ask::Nothing));
        self.advance(transcript, end..end, Ask::Nothing).await.map(|_| ())
    }

    /// For how long all replicas may be silent about so many tokens; forever where the request can't do without the member.
    fn silence_of_all(&self, tokens: usize) -> Duration {
        let Patience { step, silence_of_all, .. } = self.terms.patience;
        if self.terms.require_all { step } else { silence_of_all }
            .saturating_add(self.terms.patience.of_tokens(tokens))
    }

    async fn on_any_replica(
        &mut self,
        transcript: &Transcript,
        reading: &Reading,
    ) -> Result<Answer, ReplicaError> {
        let mut failed: Vec<Arc<Seat>> = Vec::new();
        let mut first_error: Option<ReplicaError> = None;
        let (mut is_forgiven, mut is_refused) = (false, false);
        loop {
            let error = match self.attempt(transcript, reading, &failed).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let seat = self.sitting.as_ref().map(|sitting| Arc::clone(sitting.seat()));
            let had_snapshot = self.sitting.as_ref().is_some_and(|sitting| sitting.snapshot().is_some());
            let was_new = self.sitting.as_ref().is_some_and(|sitting| sitting.is_new());
            self.leave();
            let Some(seat) = seat else {
                // Nobody is left.
                return Err(first_error.unwrap_or(error));
            };
            match error {
                // A snapshot that this replica can't read, since it is of another model now: the tokens can be.
                ReplicaError::Refused { .. } if was_new && had_snapshot => self.snapshot = None,
                // The caller's mistake, if another one says so, too.
                ReplicaError::Refused { .. } if is_refused => return Err(error),
                ReplicaError::Refused { .. } => {
                    is_refused = true;
                    failed.push(seat);
                }
                // Once it may open the session again, for whatever made it forget.
                ReplicaError::UnknownSession if !is_forgiven => is_forgiven = true,
                _ => failed.push(seat),
            }
            if matches!(first_error, None | Some(ReplicaError::Refused { .. })) {
                first_error = Some(error);
            }
        }
    }

    /// One reading on the replica that has the session, else on one that is up and is not among the failed ones. The session
    /// stays open where it failed.
    async fn attempt(
        &mut self,
        transcript: &Transcript,
        reading: &Reading,
        failed: &[Arc<Seat>],
    ) -> Result<Answer, ReplicaError> {
        let sitting = match self.sitting.take() {
            Some(sitting) => sitting,
            None => self.sit(transcript, failed)?,
        };
        // Whoever drops this future gives the sitting up, and with it the replica's work; not what is known of the session.
        self.snapshot = sitting.snapshot().cloned();
        self.asked = Some(Arc::clone(sitting.seat()));
        let (sitting, result) = match self.member.seats().len() {
            0 | 1 => read(sitting, transcript, reading).await,
            // Its future is large, and a step has one for every member.
            _ => self.hedged(sitting, transcript, reading, failed).boxed().await,
        };
        self.sitting = Some(sitting);
        result
    }

    /// Reads on one replica and, if that takes long, on another one as well, and so on. The session stays where the first
    /// answer came from.
    async fn hedged(
        &self,
        sitting: Box<Sitting>,
        transcript: &Transcript,
        reading: &Reading,
        failed: &[Arc<Seat>],
    ) -> Read {
        let snapshot = sitting.snapshot().cloned();
        // The newest is the last.
        let mut asked = failed.to_vec();
        asked.push(Arc::clone(sitting.seat()));
        let mut position = sitting.position();
        let mut first = pin!(read(sitting, transcript, reading));
        let mut is_first_over = false;
        let mut others: Vec<BoxFuture<'_, Read>> = Vec::new();
        loop {
            let next = self.sit_after_a_while(&asked, position, snapshot.as_ref(), transcript, reading);
            let back = tokio::select! {
                biased;
                back = &mut first, if !is_first_over => {
                    is_first_over = true;
                    back
                }
                back = next_of(&mut others), if !others.is_empty() => {
                    if back.1.is_ok() {
                        self.member.counts.hedges_won.add(1);
                    }
                    back
                }
                another = next => {
                    asked.push(Arc::clone(another.seat()));
                    position = another.position();
                    others.push(read(another, transcript, reading).boxed());
                    continue;
                }
            };
            // Who fails leaves it to the others.
            if back.1.is_ok() || (is_first_over && others.is_empty()) {
                return back;
            }
        }
    }

    /// The session opened at another replica than those that were asked, once the last of them has taken long enough; never
    /// where there is no other.
    async fn sit_after_a_while(
        &self,
        asked: &[Arc<Seat>],
        position: usize,
        snapshot: Option<&Snapshot>,
        transcript: &Transcript,
        reading: &Reading,
    ) -> Box<Sitting> {
        let Some(last) = asked.last() else {
            return pending().await;
        };
        let start = Instant::now();
        let of_tokens = self.terms.patience.of_tokens(reading.step.end.saturating_sub(position));
        let silence = self.terms.patience.silence + of_tokens;
        let another = || {
            let id = self.member.next_session();
            let other = self.member.choose(id, asked, silence)?;
            Sitting::open(&self.member, other, id, snapshot.cloned(), transcript, self.terms).ok()
        };
        let hedge = |other: Box<Sitting>| {
            self.member.counts.hedges.add(1);
            self.member.counts.recomputed_tokens.add(self.lacking(&other));
            other
        };
        if let Some(delay) = self.member.hedging.delay().filter(|delay| *delay < self.terms.patience.silence)
        {
            sleep_until(start + delay + of_tokens).await;
            if self.member.choose(0, asked, silence).is_some()
                && self.member.hedging.try_spend()
                && let Some(other) = another()
            {
                return hedge(other);
            }
        }
        // Whatever else it answers, it does not answer this.
        let half_time = start + reading.until.saturating_duration_since(start) / 2;
        // It may have been silent before, but then it may have been about something long.
        let mut wait = silence / 4;
        loop {
            sleep(wait).await;
            let silent = last.replica.silence();
            if (silent >= silence || Instant::now() >= half_time)
                && let Some(other) = another()
            {
                return hedge(other);
            }
            // Where others had answers in the meantime, it works.
            wait = if silent < silence { silence - silent } else { silence };
        }
    }

    /// Opens the session at a replica that is up, none of `except`, where it can be taken up.
    fn sit(&self, transcript: &Transcript, except: &[Arc<Seat>]) -> Result<Box<Sitting>, ReplicaError> {
        let id = self.member.next_session();
        let Some(seat) = self.member.choose(id, except, self.terms.patience.silence) else {
            let reason = self.member.presence().reason().to_owned();
            return Err(ReplicaError::Lost { reason });
        };
        let sitting = Sitting::open(&self.member, seat, id, self.snapshot.clone(), transcript, self.terms)?;
        if self.read > 0 {
            self.member.counts.takeovers.add(1);
            self.member.counts.recomputed_tokens.add(self.lacking(&sitting));
        }
        Ok(sitting)
    }

    /// Tokens that were answered about once and that another replica has to read again.
    fn lacking(&self, sitting: &Sitting) -> u64 {
        self.read.saturating_sub(sitting.position()) as u64
    }

    /// Closes the session where it is open, and keeps what it can be taken up from.
    fn leave(&mut self) {
        let Some(mut sitting) = self.sitting.take() else {
            return;
        };
        self.snapshot = sitting.leave();
    }

    /// Where it can be taken up again now.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.sitting.as_ref().map_or(self.snapshot.as_ref(), |sitting| sitting.snapshot())
    }

    fn snapshot_position(&self) -> usize {
        self.snapshot().map_or(0, Snapshot::position)
    }
}

/// The answer, unless nothing comes from the member for so long; none where it is late.
async fn in_time(
    alarm: &mut Alarm,
    start: Instant,
    until: Instant,
    member: &Member,
    silence: Duration,
    answer: impl Future<Output = Result<Answer, ReplicaError>>,
) -> Option<Result<Answer, ReplicaError>> {
    let mut answer = pin!(answer);
    let mut look_again = start + silence;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = alarm.rings(look_again.min(until)) => {}
        }
        let (now, silent) = (Instant::now(), member.silence());
        if now >= until {
            return None;
        }
        if silent >= silence {
            return Some(Err(ReplicaError::Silent { milliseconds: silence.as_millis() }));
        }
        look_again = now + (silence - silent);
    }
}

async fn read(mut sitting: Box<Sitting>, transcript: &Transcript, reading: &Reading) -> Read {
    let result = sitting.read(transcript, reading).await;
    (sitting, result)
}

/// The first of these that is over; it is taken out.
async fn next_of(readings: &mut Vec<BoxFuture<'_, Read>>) -> Read {
    poll_fn(|context| {
        for place in 0..readings.len() {
            if let Some(reading) = readings.get_mut(place)
                && let Poll::Ready(read) = reading.as_mut().poll(context)
            {
                drop(readings.swap_remove(place));
                return Poll::Ready(read);
            }
        }
        Poll::Pending
    })
    .await
}
