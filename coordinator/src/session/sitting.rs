//! [`Sitting`]: one opening of a session at one replica. Dropping it closes the session there.
//!
//! Knows nothing about the member's other replicas, nor about how long an answer may take.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chorus_proto::v1::WorkerLimits;
use tokio::time::Instant;

use super::terms::SessionTerms;
use super::transcript::Transcript;
use crate::member::{Counted, Member, Seat};
use crate::plan::{Ask, PlanKind, Positions};
use crate::replica::{Answer, Answered, Feed, Origin, ReplicaError, SessionId};
use crate::snapshot::Snapshot;
use crate::telemetry::feed_span;

/// Tokens in one feed at most, whatever a worker allows: a deadline and a batch stay within reason.
pub(crate) const MAX_FEED_TOKENS: usize = 4096;

/// A session that is open at a replica, and how far it is.
pub(super) struct Sitting {
    seat: Arc<Seat>,
    id: SessionId,
    step: u64,
    position: usize,
    /// The last one that came.
    snapshot: Option<Snapshot>,
    limits: WorkerLimits,
    plan: PlanKind,
    snapshot_tokens: u32,
    prompt_tokens: u32,
    _counted: Counted,
}

/// What is to be read and asked, and until when the answer is of use.
#[derive(Clone)]
pub(super) struct Reading {
    /// The tokens that the ask is about where it is about each; the last one is the last that is read.
    pub(super) step: Range<usize>,
    pub(super) ask: Ask,
    pub(super) until: Instant,
    /// Whose it is, where spans are recorded.
    pub(super) traced: Option<Arc<Member>>,
}

impl Sitting {
    /// Opens the session where the snapshot was taken, or at its beginning.
    ///
    /// # Errors
    /// The replica speaks another vocabulary than the session, since its worker was replaced by another.
    pub(super) fn open(
        member: &Member,
        seat: Arc<Seat>,
        id: SessionId,
        snapshot: Option<Snapshot>,
        transcript: &Transcript,
        terms: SessionTerms,
    ) -> Result<Box<Self>, ReplicaError> {
        let (origin, position) =
            (Origin::at(snapshot.as_ref()), snapshot.as_ref().map_or(0, Snapshot::position));
        seat.replica.open(id, origin);
        // Looked at after the opening, the card is that of the worker that heard of it, or a newer one, and then the
        // session is unknown there.
        let card = seat.replica.card();
        let limits = card.as_ref().and_then(|card| card.limits).unwrap_or_default();
        let sitting = Box::new(Self {
            id,
            step: 0,
            position,
            snapshot,
            limits,
            plan: terms.plan,
            snapshot_tokens: terms.snapshot_tokens,
            prompt_tokens: terms.prompt_tokens,
            _counted: Counted::new(&seat.sessions),
            seat,
        });
        match card {
            Some(card) if card.vocabulary_fingerprint != transcript.vocabulary() => {
                tracing::debug!(member = member.name(), "another vocabulary");
                Err(ReplicaError::Lost { reason: "its vocabulary is not the session's any more".to_owned() })
            }
            _ => Ok(sitting),
        }
    }

    /// Another session where this one stands, at the same replica. This one has no feed under way.
    pub(super) fn fork(&self, id: SessionId) -> Box<Self> {
        self.seat.replica.open(id, Origin::Fork(self.id));
        Box::new(Self {
            seat: Arc::clone(&self.seat),
            id,
            step: 0,
            snapshot: self.snapshot.clone(),
            _counted: Counted::new(&self.seat.sessions),
            ..*self
        })
    }

    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Tokens that the replica has read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Where the session can be taken up again.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The latest place where the session can be taken up again: what the replica handed over when it left, if it did.
    pub(super) fn leave(&mut self) -> Option<Snapshot> {
        let handed_over = self.seat.replica.handed_over(self.id);
        // It stands after the last answer; what says otherwise is of another session.
        handed_over.filter(|snapshot| snapshot.position() == self.position).or_else(|| self.snapshot.take())
    }

    /// Whether no feed was answered since it was opened.
    pub(super) fn is_new(&self) -> bool {
        self.step <= 1
    }

    /// The most tokens of one feed with this ask.
    pub(super) fn max_feed_tokens(&self, ask: &Ask) -> usize {
        let allowed = match ask {
            Ask::Logits { positions: Positions::Each, .. } => {
                self.limits.max_feed_tokens.min(self.limits.max_answer_rows)
            }
            _ => self.limits.max_feed_tokens,
        };
        (allowed as usize).clamp(1, MAX_FEED_TOKENS)
    }

    /// Reads the transcript up to the end of the step and asks about it. Tokens that do not fit into one feed, and those
    /// before a step of which each token is asked about, go before it in feeds that ask nothing.
    ///
    /// # Errors
    /// Those of the feeds, and a replica that takes less at once than the step holds, whose answer would not be about all
    /// of it.
    pub(super) async fn read(
        &mut self,
        transcript: &Transcript,
        reading: &Reading,
    ) -> Result<Answer, ReplicaError> {
        let Reading { step, ask, .. } = reading;
        if self.position > step.end {
            return Err(ReplicaError::Lost { reason: "it is ahead of the session".to_owned() });
        }
        let most = self.max_feed_tokens(&Ask::Nothing);
        let (before, left) = if ask.is_about_each() { (step.start, 0) } else { (step.end, most) };
        while self.position + left < before {
            let end = before.min(self.position + most);
            self.feed(transcript, end, Ask::Nothing, reading).await?;
        }
        if ask.is_about_each() && step.len() > self.max_feed_tokens(ask) {
            let reason = "it is another worker, which takes less at once".to_owned();
            return Err(ReplicaError::Lost { reason });
        }
        self.feed(transcript, step.end, ask.clone(), reading).await
    }

    async fn feed(
        &mut self,
        transcript: &Transcript,
        end: usize,
        ask: Ask,
        Reading { until, traced, .. }: &Reading,
    ) -> Result<Answer, ReplicaError> {
        let tokens = transcript.part(self.position..end);
        self.step += 1;
        let member = traced.as_ref().map(|member| member.name());
        let span = feed_span(member, self.seat.replica.address(), self.step, tokens.len());
        let feed = Feed {
            session: self.id,
            step: self.step,
            snapshot: self.wants_snapshot(tokens.len()),
            tokens,
            ask,
            plan: self.plan,
            timeout: until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
            traceparent: chorus_trace::traceparent(&span),
        };
        let answered = self.seat.replica.feed(feed).await;
        if let Err(error) = &answered {
            span.record("otel.status_code", "ERROR").record("error", tracing::field::display(error));
        }
        drop(span);
        let Answered { answer, snapshot } = answered?;
        self.position = end;
        // A worker that takes none, or whose snapshot is not of here, has its sessions read again from the last one.
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.position() == end) {
            self.snapshot = Some(snapshot);
        }
        Ok(answer)
    }

    /// At the end of a prompt, and whenever so many tokens have come since the last one.
    fn wants_snapshot(&self, tokens: usize) -> bool {
        let end = self.position + tokens;
        let since = end.saturating_sub(self.snapshot.as_ref().map_or(0, Snapshot::position));
        let is_of_prompt = since > 0 && end <= self.prompt_tokens as usize;
        let most = self.snapshot_tokens as usize;
        is_of_prompt || (most > 0 && (since >= most || tokens > 1))
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.seat.replica.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use chorus_text::Vocabulary;

    use super::*;
    use crate::replica::Replica;
    use crate::testing::scripted_replica::ScriptedReplica;

    #[test]
    fn a_session_is_not_opened_at_a_replica_with_another_vocabulary() {
        let (ours, other) = ["abc", "xyz"].map(|text| Vocabulary::train_characters(text).unwrap()).into();
        let replica = ScriptedReplica::new("alto", 1, &ours);
        replica.start();
        let member = Member::new("alto", [replica as Arc<dyn Replica>], 0.0);
        let seat = Arc::clone(&member.seats()[0]);
        let open = |id, vocabulary: &Vocabulary| {
            let transcript = Transcript::new(vocabulary.fingerprint());
            Sitting::open(&member, Arc::clone(&seat), id, None, &transcript, SessionTerms::of_tests())
        };
        assert!(open(1, &ours).is_ok());
        let error = open(2, &other).err().expect("other tokens would be read");
        assert_eq!(error.to_string(), "its vocabulary is not the session's any more");
        assert_eq!(seat.sessions.load(Ordering::Relaxed), 0);
    }
}
