//! [`Place`]: where one member stands in one session.
//!
//! Knows nothing about the other members or about how answers are used.

use std::task::{Context, Poll, Waker, ready};

use super::awaited::UnderWay;
use super::catch_up::CatchUp;
use super::member_session::MemberSession;
use crate::replica::Presence;

pub(super) enum Place {
    /// It answers every step.
    InStep(Box<MemberSession>),
    /// It still answers a step that was decided without it.
    Straggling(UnderWay),
    /// It was lost, or not up when the session began, and comes back in the background.
    CatchingUp { reason: String, way: CatchUp },
    /// It stays out of this session.
    Out { reason: String },
}

/// Nowhere, for as long as its session is on its way.
impl Default for Place {
    fn default() -> Self {
        Self::Out { reason: String::new() }
    }
}

impl Place {
    pub(super) fn in_step(&mut self) -> Option<&mut MemberSession> {
        match self {
            Self::InStep(session) => Some(&mut **session),
            Self::Straggling(_) | Self::CatchingUp { .. } | Self::Out { .. } => None,
        }
    }

    /// Whether it comes back by itself.
    pub(super) fn is_on_its_way(&self) -> bool {
        matches!(self, Self::CatchingUp { .. })
    }

    /// Takes a member in that has caught up. True when it has just come back.
    pub(super) fn arrive(&mut self) -> bool {
        self.poll_arrival(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Takes a member in as soon as it has caught up; one that is not on its way never arrives.
    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::CatchingUp { way, .. } = self else {
            return Poll::Pending;
        };
        match ready!(way.poll_arrival(context)) {
            Ok(session) => {
                *self = Self::InStep(session);
                Poll::Ready(())
            }
            Err(error) => {
                *self = Self::Out { reason: error.to_string() };
                Poll::Pending
            }
        }
    }

    /// Why the member is not in a step, for people.
    pub(super) fn reason(&self, presence: &Presence) -> String {
        match self {
            // It was in step only after the result was made.
            Self::InStep(_) => "joins with the next step".to_owned(),
            Self::Straggling(_) => "the others had decided when it was late".to_owned(),
            Self::Out { reason } => reason.clone(),
            Self::CatchingUp { reason, .. } if presence.is_up() => format!("catching up ({reason})"),
            Self::CatchingUp { .. } => presence.reason().to_owned(),
        }
    }
}
