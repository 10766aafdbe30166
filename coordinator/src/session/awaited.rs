//! The members of one step whose answers are awaited, each on its own way with its session. A member that still answers an
//! earlier step is asked about this one as soon as it has. Members that nothing is new of are not looked after: a step has an
//! answer for each, and each would cost a look at all the others.
//!
//! Knows nothing about how long anybody waits or about what is decided.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use tokio_util::sync::ReusableBoxFuture;

use super::bells::{Bell, Bells};
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
    members: Vec<AwaitedMember>,
    boxes: Boxes,
}

struct AwaitedMember {
    index: usize,
    progress: Progress,
    bell: Bell,
}

/// Boxes of steps that are over, for the next ones: each is large, and there is one for every member and token. And the bells
/// by which those are heard that go on.
#[derive(Default)]
pub(super) struct Boxes {
    unused: Vec<UnderWay>,
    bells: Bells,
}

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
        self.watch(index, Progress::Asked(under_way));
    }

    /// Asks a member once it has answered an earlier step.
    pub(super) fn ask_after(&mut self, index: usize, earlier: UnderWay, ask: Ask) {
        self.watch(index, Progress::Before(earlier, ask));
    }

    fn watch(&mut self, index: usize, progress: Progress) {
        let bell = self.boxes.bells.hang();
        self.members.push(AwaitedMember { index, progress, bell });
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
        self.members.iter().map(|member| member.index).collect()
    }

    /// Those that are not back, with the step that they are at, and the boxes of all others.
    pub(super) fn into_stragglers(self) -> (Vec<(usize, UnderWay)>, Boxes) {
        let Self { members, mut boxes, .. } = self;
        let stragglers = members.into_iter().map(|AwaitedMember { index, progress, bell }| {
            boxes.bells.take_down(bell);
            let (Progress::Before(under_way, _) | Progress::Asked(under_way)) = progress;
            (index, under_way)
        });
        (stragglers.collect(), boxes)
    }

    fn under_way(&mut self, mut session: Box<MemberSession>, ask: Ask) -> UnderWay {
        let (transcript, step) = (self.transcript.clone(), self.step.clone());
        self.boxes.hold(async move {
            let result = session.advance(&transcript, step, ask).await;
            Returned { session, result }
        })
    }

    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<(usize, Returned)> {
        self.boxes.bells.listen(context);
        for place in 0..self.members.len() {
            if self.members[place].bell.has_rung()
                && let Poll::Ready(returned) = self.poll_one(place)
            {
                let AwaitedMember { index, progress, bell } = self.members.swap_remove(place);
                let (Progress::Before(over, _) | Progress::Asked(over)) = progress;
                self.boxes.unused.push(over);
                self.boxes.bells.take_down(bell);
                return Poll::Ready((index, returned));
            }
        }
        Poll::Pending
    }

    fn poll_one(&mut self, place: usize) -> Poll<Returned> {
        let AwaitedMember { progress, bell, .. } = &mut self.members[place];
        let (earlier, ask) = match progress {
            Progress::Asked(under_way) => return under_way.poll(&mut bell.context()),
            Progress::Before(earlier, ask) => (earlier, ask),
        };
        let Returned { session, result } = ready!(earlier.poll(&mut bell.context()));
        if result.is_err() {
            return Poll::Ready(Returned { session, result });
        }
        // What it says about the earlier step is of no use any more.
        let ask = ask.clone();
        let mut under_way = self.under_way(session, ask);
        let AwaitedMember { progress, bell, .. } = &mut self.members[place];
        let polled = under_way.poll(&mut bell.context());
        *progress = Progress::Asked(under_way);
        polled
    }
}

impl Boxes {
    fn hold(&mut self, step: impl Future<Output = Returned> + Send + 'static) -> UnderWay {
        match self.unused.pop() {
            Some(mut used) => {
                used.set(step);
                used
            }
            None => UnderWay::new(step),
        }
    }
}
