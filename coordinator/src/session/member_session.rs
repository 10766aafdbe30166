//! [`MemberSession`]: one opening of a session at one member. Dropping it closes the session there.
//!
//! Knows nothing about the other members.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chorus_proto::v1::WorkerLimits;

use super::transcript::Transcript;
use crate::member::{Answer, Feed, MemberError, SessionId};
use crate::plan::{Ask, PlanKind, Positions};
use crate::roster::Seat;

/// Tokens in one feed at most, whatever a worker allows: a deadline and a batch stay within reason.
pub(crate) const MAX_FEED_TOKENS: usize = 4096;

/// How long a member may take over a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a step of one token.
    pub(crate) step: Duration,
    /// For each token of a feed on top, so that a long input has time in proportion.
    pub(crate) token: Duration,
}

/// What holds for a session at every member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionTerms {
    pub(crate) patience: Patience,
    /// For which its bytes are counted.
    pub(crate) plan: PlanKind,
}

/// A session that is open at one member, and how far it is.
pub(crate) struct MemberSession {
    seat: Arc<Seat>,
    id: SessionId,
    step: u64,
    position: usize,
    limits: WorkerLimits,
    terms: SessionTerms,
    _counted: Counted,
}

/// One of the sessions that a member takes part in, as `Status` counts them.
struct Counted(Arc<AtomicU32>);

impl Patience {
    pub(crate) fn for_tokens(self, tokens: usize) -> Duration {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.step.saturating_add(self.token.saturating_mul(tokens))
    }
}

impl MemberSession {
    /// # Errors
    /// The member speaks another vocabulary than the session, since its worker was replaced by another.
    pub(crate) fn open(
        seat: &Arc<Seat>,
        id: SessionId,
        transcript: &Transcript,
        terms: SessionTerms,
    ) -> Result<Self, MemberError> {
        seat.member.open(id);
        // Looked at after the opening, the card is that of the worker that heard of it, or a newer one, and then the
        // session is unknown there.
        let card = seat.member.card();
        let limits = card.as_ref().and_then(|card| card.limits).unwrap_or_default();
        let session = Self {
            seat: Arc::clone(seat),
            id,
            step: 0,
            position: 0,
            limits,
            terms,
            _counted: Counted::new(&seat.sessions),
        };
        match card {
            Some(card) if card.vocabulary_fingerprint != transcript.vocabulary() => {
                Err(MemberError::Lost { reason: "its vocabulary is not the session's any more".to_owned() })
            }
            _ => Ok(session),
        }
    }

    /// Opens the session and reads the transcript from its beginning: what comes before the step without a question, the
    /// step itself with it.
    ///
    /// # Errors
    /// As [`Self::open`], those of the feeds, and a worker that takes less at once than the step holds, whose answer
    /// would not be about all of it.
    pub(crate) async fn read_again(
        seat: &Arc<Seat>,
        id: SessionId,
        transcript: &Transcript,
        terms: SessionTerms,
        step: Range<usize>,
        ask: Ask,
    ) -> Result<(Self, Answer), MemberError> {
        let mut session = Self::open(seat, id, transcript, terms)?;
        if step.start > 0 {
            session.advance(transcript, step.start, Ask::Nothing).await?;
        }
        if ask.is_about_each() && step.len() > session.max_feed_tokens(&ask) {
            let reason = "it is another worker, which takes less at once".to_owned();
            return Err(MemberError::Lost { reason });
        }
        let answer = session.advance(transcript, step.end, ask).await?;
        Ok((session, answer))
    }

    /// Tokens that the member has read.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The most tokens of one feed with this ask.
    pub(crate) fn max_feed_tokens(&self, ask: &Ask) -> usize {
        let allowed = match ask {
            Ask::Logits { positions: Positions::Each, .. } => {
                self.limits.max_feed_tokens.min(self.limits.max_answer_rows)
            }
            _ => self.limits.max_feed_tokens,
        };
        (allowed as usize).clamp(1, MAX_FEED_TOKENS)
    }

    /// Reads the transcript up to `end` and asks about the last feed. Tokens that do not fit into one feed go before it
    /// in feeds that ask nothing.
    pub(crate) async fn advance(
        &mut self,
        transcript: &Transcript,
        end: usize,
        ask: Ask,
    ) -> Result<Answer, MemberError> {
        let most = self.max_feed_tokens(&Ask::Nothing);
        while end.saturating_sub(self.position) > most {
            self.feed(transcript, self.position + most, Ask::Nothing).await?;
        }
        self.feed(transcript, end, ask).await
    }

    /// Reads one feed's worth of what is there, or less.
    pub(crate) async fn catch_up(&mut self, transcript: &Transcript) -> Result<(), MemberError> {
        let end = transcript.len().min(self.position + self.max_feed_tokens(&Ask::Nothing));
        self.feed(transcript, end, Ask::Nothing).await.map(|_| ())
    }

    async fn feed(&mut self, transcript: &Transcript, end: usize, ask: Ask) -> Result<Answer, MemberError> {
        let tokens = transcript.part(self.position..end);
        let SessionTerms { patience, plan } = self.terms;
        let patience = patience.for_tokens(tokens.len());
        self.step += 1;
        let answer = self.seat.member.feed(Feed { session: self.id, step: self.step, tokens, ask, plan });
        let Ok(answer) = tokio::time::timeout(patience, answer).await else {
            self.seat.member.late();
            return Err(MemberError::Late { milliseconds: patience.as_millis() });
        };
        let answer = answer?;
        self.position = end;
        Ok(answer)
    }
}

impl Drop for MemberSession {
    fn drop(&mut self) {
        self.seat.member.close(self.id);
    }
}

impl Counted {
    fn new(sessions: &Arc<AtomicU32>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sessions))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use chorus_text::Vocabulary;

    use super::*;
    use crate::testing::scripted_member::ScriptedMember;

    #[test]
    fn a_session_is_not_opened_at_a_member_with_another_vocabulary() {
        let (ours, other) = ["abc", "xyz"].map(|text| Vocabulary::train_characters(text).unwrap()).into();
        let member = ScriptedMember::new("alto", 1, &ours);
        member.start();
        let seat = Arc::new(Seat { member, sessions: Arc::default() });
        let patience = Patience { step: Duration::from_secs(1), token: Duration::ZERO };
        let terms = SessionTerms { patience, plan: PlanKind::Dense };
        let open = |id, vocabulary: &Vocabulary| {
            MemberSession::open(&seat, id, &Transcript::new(vocabulary.fingerprint()), terms)
        };
        assert!(open(1, &ours).is_ok());
        let error = open(2, &other).err().expect("other tokens would be read");
        assert_eq!(error.to_string(), "its vocabulary is not the session's any more");
        assert_eq!(seat.sessions.load(Ordering::Relaxed), 0);
    }
}
