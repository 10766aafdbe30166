//! The members of one step whose answers are awaited, each on its own way with its session. A member that still answers an
//! earlier step is asked about this one as soon as it has.
//!
//! Knows nothing about how long anybody waits or about what is decided.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::member_session::MemberSession;
use super::transcript::Transcript;
use crate::plan::Ask;
use crate::replica::{Answer, ReplicaError};

/// A member's session, back from a step with its result.
pub(super) struct Returned {
    pub(super) session: MemberSession,
    pub(super) result: Result<Answer, ReplicaError>,
}

/// A step of a member that is under way. Dropping it gives the step up, and the session.
pub(super) type UnderWay = BoxFuture<'static, Returned>;

/// Members with their steps under way.
pub(super) struct Awaited {
    transcript: Transcript,
    step: Range<usize>,
    ask: Ask,
    members: Vec<(usize, Progress)>,
}

/// How far a member is.
enum Progress {
    /// It answers an earlier step.
    Before(UnderWay),
    /// It answers this one.
    Asked(UnderWay),
}

impl Awaited {
    /// For a step that is asked this.
    pub(super) fn new(transcript: &Transcript, step: Range<usize>, ask: Ask) -> Self {
        Self { transcript: transcript.clone(), step, ask, members: Vec::new() }
    }

    /// Asks a member.
    pub(super) fn ask(&mut self, index: usize, session: MemberSession) {
        let under_way = self.under_way(session);
        self.members.push((index, Progress::Asked(under_way)));
    }

    /// Asks a member once it has answered an earlier step.
    pub(super) fn ask_after(&mut self, index: usize, earlier: UnderWay) {
        self.members.push((index, Progress::Before(earlier)));
    }

    /// The next one that is back from this step; none when all are.
    pub(super) async fn next(&mut self) -> Option<(usize, Returned)> {
        if self.members.is_empty() {
            return None;
        }
        Some(std::future::poll_fn(|context| self.poll_any(context)).await)
    }

    /// Who is awaited, in no order.
    pub(super) fn members(&self) -> Vec<usize> {
        self.members.iter().map(|(index, _)| *index).collect()
    }

    /// Those that are not back, with the step that they are at.
    pub(super) fn stragglers(self) -> impl Iterator<Item = (usize, UnderWay)> {
        self.members.into_iter().map(|(index, progress)| match progress {
            Progress::Before(under_way) | Progress::Asked(under_way) => (index, under_way),
        })
    }

    fn under_way(&self, mut session: MemberSession) -> UnderWay {
        let (transcript, step, ask) = (self.transcript.clone(), self.step.clone(), self.ask.clone());
        async move {
            let result = session.advance(&transcript, step, ask).await;
            Returned { session, result }
        }
        .boxed()
    }

    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<(usize, Returned)> {
        for place in 0..self.members.len() {
            if let Poll::Ready(returned) = self.poll_one(place, context) {
                let (index, _) = self.members.swap_remove(place);
                return Poll::Ready((index, returned));
            }
        }
        Poll::Pending
    }

    fn poll_one(&mut self, place: usize, context: &mut Context<'_>) -> Poll<Returned> {
        let Some((_, progress)) = self.members.get_mut(place) else {
            return Poll::Pending;
        };
        let under_way = match progress {
            Progress::Asked(under_way) => return Pin::new(under_way).poll(context),
            Progress::Before(earlier) => earlier,
        };
        let Returned { session, result } = ready!(Pin::new(under_way).poll(context));
        if result.is_err() {
            return Poll::Ready(Returned { session, result });
        }
        // What it says about the earlier step is of no use any more.
        let mut under_way = self.under_way(session);
        let polled = Pin::new(&mut under_way).poll(context);
        if let Some((_, progress)) = self.members.get_mut(place) {
            *progress = Progress::Asked(under_way);
        }
        polled
    }
}
