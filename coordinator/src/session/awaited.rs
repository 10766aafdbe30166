//! The members of one step whose answers are awaited, each on its own way with its session. A member that still answers an
//! earlier step is asked about this one as soon as it has.
//!
//! Knows nothing about how long anybody waits or about what is decided.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use tokio_util::sync::ReusableBoxFuture;

use super::member_session::MemberSession;
use super::transcript::Transcript;
use crate::plan::Ask;
use crate::replica::{Answer, ReplicaError};

/// A member's session, back from a step with its result.
pub(super) struct Returned {
    pub(super) session: Box<MemberSession>,
    pub(super) result: Result<Answer, ReplicaError>,
}

/// A step of a member that is under way. Dropping it gives the step up, and the session.
pub(super) type UnderWay = ReusableBoxFuture<'static, Returned>;

/// Members with their steps under way.
pub(super) struct Awaited {
    transcript: Transcript,
    step: Range<usize>,
    members: Vec<(usize, Progress)>,
    boxes: Boxes,
}

/// Boxes of steps that are over, for the next ones: each is large, and there is one for every member and token.
#[derive(Default)]
pub(super) struct Boxes(Vec<UnderWay>);

/// How far a member is.
enum Progress {
    /// It answers an earlier step, and is asked this then.
    Before(UnderWay, Ask),
    /// It answers this one.
    Asked(UnderWay),
}

impl Awaited {
    /// For a step of these tokens.
    pub(super) fn new(transcript: &Transcript, step: Range<usize>, boxes: Boxes) -> Self {
        Self { transcript: transcript.clone(), step, members: Vec::new(), boxes }
    }

    /// Asks a member.
    pub(super) fn ask(&mut self, index: usize, session: Box<MemberSession>, ask: Ask) {
        let under_way = self.under_way(session, ask);
        self.members.push((index, Progress::Asked(under_way)));
    }

    /// Asks a member once it has answered an earlier step.
    pub(super) fn ask_after(&mut self, index: usize, earlier: UnderWay, ask: Ask) {
        self.members.push((index, Progress::Before(earlier, ask)));
    }

    /// The next one that is back from this step; none when all are.
    pub(super) async fn next(&mut self) -> Option<(usize, Returned)> {
        if self.members.is_empty() {
            return None;
        }
        Some(poll_fn(|context| self.poll_any(context)).await)
    }

    /// Who is awaited, in no order.
    pub(super) fn members(&self) -> Vec<usize> {
        self.members.iter().map(|(index, _)| *index).collect()
    }

    /// Those that are not back, with the step that they are at, and the boxes of all others.
    pub(super) fn into_stragglers(self) -> (impl Iterator<Item = (usize, UnderWay)>, Boxes) {
        let stragglers = self.members.into_iter().map(|(index, progress)| match progress {
            Progress::Before(under_way, _) | Progress::Asked(under_way) => (index, under_way),
        });
        (stragglers, self.boxes)
    }

    fn under_way(&mut self, mut session: Box<MemberSession>, ask: Ask) -> UnderWay {
        let (transcript, step) = (self.transcript.clone(), self.step.clone());
        self.boxes.hold(async move {
            let result = session.advance(&transcript, step, ask).await;
            Returned { session, result }
        })
    }

    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<(usize, Returned)> {
        for place in 0..self.members.len() {
            if let Poll::Ready(returned) = self.poll_one(place, context) {
                let (index, progress) = self.members.swap_remove(place);
                let (Progress::Before(over, _) | Progress::Asked(over)) = progress;
                self.boxes.0.push(over);
                return Poll::Ready((index, returned));
            }
        }
        Poll::Pending
    }

    fn poll_one(&mut self, place: usize, context: &mut Context<'_>) -> Poll<Returned> {
        let Some((_, progress)) = self.members.get_mut(place) else {
            return Poll::Pending;
        };
        let (earlier, ask) = match progress {
            Progress::Asked(under_way) => return under_way.poll(context),
            Progress::Before(earlier, ask) => (earlier, ask),
        };
        let Returned { session, result } = ready!(earlier.poll(context));
        if result.is_err() {
            return Poll::Ready(Returned { session, result });
        }
        // What it says about the earlier step is of no use any more.
        let ask = ask.clone();
        let mut under_way = self.under_way(session, ask);
        let polled = under_way.poll(context);
        if let Some((_, progress)) = self.members.get_mut(place) {
            *progress = Progress::Asked(under_way);
        }
        polled
    }
}

impl Boxes {
    fn hold(&mut self, step: impl Future<Output = Returned> + Send + 'static) -> UnderWay {
        match self.0.pop() {
            Some(mut used) => {
                used.set(step);
                used
            }
            None => UnderWay::new(step),
        }
    }
}
