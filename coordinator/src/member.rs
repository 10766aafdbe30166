//! [`Member`]: one model of the ensemble as the coordinator sees it, and what can go wrong with it.
//!
//! Knows nothing about gRPC, sessions of the ensemble, or how answers are fused: a scripted fake is a member too, and
//! hedging, breakers or retries wrap any member.

use std::sync::Arc;

use chorus_proto::v1::ModelCard;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::fusion::Norm;
use crate::plan::{Ask, PlanKind};
use crate::rows::Rows;
use crate::tops::Tops;
use crate::traffic::TrafficCounts;

/// Names one opening of a session at one member. Never used twice, so a late answer can't be taken for a new one.
pub type SessionId = u64;

/// One model of the ensemble. Calls never block; only [`Member::feed`] waits, and dropping its future gives the wait up.
pub trait Member: Send + Sync + 'static {
    /// The name that the configuration gives it.
    fn name(&self) -> &str;

    /// Where it is, for people.
    fn address(&self) -> &str;

    /// Whether it can be asked, now and from now on.
    fn presence(&self) -> watch::Receiver<Presence>;

    /// What it hosts, once it was reached; the last known while it is down.
    fn card(&self) -> Option<Arc<ModelCard>>;

    /// Starts a session at the model's start state. A failure to open shows in the first feed.
    fn open(&self, session: SessionId);

    /// Appends tokens to a session and asks about them. There is no deadline here: the caller sets one.
    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answer, MemberError>>;

    /// Says that a feed was given up at its deadline, which dropping its future does not tell: a caller that hangs up
    /// does the same.
    fn late(&self);

    /// Says that an answer which looked sound was not, as others showed: the member broke the protocol.
    fn discredit(&self);

    /// Ends a session; one that is not open is ignored.
    fn close(&self, session: SessionId);

    /// What has gone over its link, for each plan.
    fn traffic(&self, plan: PlanKind) -> TrafficCounts;
}

/// One numbered step of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// The session, opened before.
    pub session: SessionId,
    /// 1 for the first feed of a session, then one more each time.
    pub step: u64,
    /// What is appended; may be empty where the ask is about the session as it stands.
    pub tokens: Vec<u32>,
    /// What is asked.
    pub ask: Ask,
    /// For which plan, by which its bytes are counted.
    pub plan: PlanKind,
}

/// What a member answers, in the shape that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The session advanced.
    Advanced,
    /// Dense logits: one row for the next token, or one for each fed token.
    Rows(Rows),
    /// The log-probability of each fed token, natural logarithm.
    Targets(Vec<f64>),
    /// The likeliest tokens: of the next token's distribution, or of that of each fed token.
    Top(Tops),
    /// The logits of the tokens that were asked for.
    Ids {
        /// In the order of the ask.
        logits: Vec<f32>,
        /// Of the whole row.
        norm: Norm,
    },
    /// A token, drawn.
    Drawn(u32),
}

/// Whether a member can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Never reached yet, and why not.
    Connecting {
        /// For people.
        reason: String,
    },
    /// It answers.
    Up {
        /// Changes whenever its process starts: sessions of another incarnation are gone.
        incarnation: Arc<str>,
    },
    /// It was reached before and is lost.
    Down {
        /// For people.
        reason: String,
    },
    /// It was reached, but it can't be a member of this ensemble.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Why a member did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The link broke or the process died.
    #[error("{reason}")]
    Lost {
        /// For people.
        reason: String,
    },
    /// No answer came in time.
    #[error("no answer within {milliseconds} ms")]
    Late {
        /// The deadline that it missed.
        milliseconds: u128,
    },
    /// The caller's mistake, as the member sees it. Never counts against the member.
    #[error("it refused the request: {message}")]
    Refused {
        /// The member's sentence.
        message: String,
    },
    /// It has no room for the session now.
    #[error("it has no room: {message}")]
    Exhausted {
        /// The member's sentence.
        message: String,
    },
    /// It no longer knows the session: it restarted, or the session was idle for too long.
    #[error("it no longer knows the session")]
    UnknownSession,
    /// It answered something else than what was asked.
    #[error("it broke the protocol: {violation}")]
    Protocol {
        /// What was wrong with the answer.
        violation: String,
    },
    /// It answered numbers that are not finite.
    #[error("it answered numbers that are not finite: {what}")]
    NotFinite {
        /// Which ones.
        what: String,
    },
}

impl Presence {
    /// Whether the member answers.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Why the member can't be asked, for people; empty when it can.
    pub fn reason(&self) -> &str {
        match self {
            Self::Up { .. } => "",
            Self::Connecting { reason } | Self::Down { reason } | Self::Refused { reason } => reason,
        }
    }
}
