//! [`Replica`]: one worker that hosts a member's model, as the coordinator sees it, and what can go wrong with it.
//!
//! Knows nothing about gRPC, about the member's other replicas, or how answers are fused: a scripted fake is a replica too.

use std::sync::Arc;
use std::time::Duration;

use chorus_proto::v1::ModelCard;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::fusion::Norm;
use crate::plan::{Ask, PlanKind};
use crate::rows::Rows;
use crate::snapshot::Snapshot;
use crate::tops::Tops;
use crate::traffic::TrafficCounts;

/// Names one opening of a session at one member. Never used twice, so a late answer can't be taken for a new one.
pub type SessionId = u64;

/// One worker. Calls never block; only [`Replica::feed`] waits, and dropping its future gives the wait up.
pub trait Replica: Send + Sync + 'static {
    /// Where it is, for people; no two replicas of a member have the same.
    fn address(&self) -> &str;

    /// Whether it can be asked, now and from now on.
    fn presence(&self) -> watch::Receiver<Presence>;

    /// What it hosts, once it was reached; the last known while it is down.
    fn card(&self) -> Option<Arc<ModelCard>>;

    /// Starts a session. A failure to open shows in the first feed.
    fn open(&self, session: SessionId, origin: Origin<'_>);

    /// Appends tokens to a session and asks about them. There is no deadline here: the caller sets one.
    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answered, ReplicaError>>;

    /// For how long nothing at all has come from it while something is waited for.
    fn silence(&self) -> Duration;

    /// Says that a feed was given up at its deadline, which dropping its future does not tell: a caller that
    /// hangs up does the same.
    fn late(&self);

    /// Says that an answer which looked sound was not, as others showed: the replica broke the protocol.
    fn discredit(&self);

    /// Where a session stands that the replica will not go on with, if it said so. Told once.
    fn handed_over(&self, session: SessionId) -> Option<Snapshot>;

    /// Ends a session; one that is not open is ignored.
    fn close(&self, session: SessionId);

    /// What has gone over its link, for each plan.
    fn traffic(&self, plan: PlanKind) -> TrafficCounts;
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin<'a> {
    /// At the model's start state.
    Start,
    /// Where this was taken.
    Snapshot(&'a Snapshot),
    /// Where this session of the same replica stands, of which every feed is answered. It stays as it is.
    Fork(SessionId),
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
    /// Whether the answer is to bring a snapshot of the session after it.
    pub snapshot: bool,
    /// How long the answer is of use.
    pub timeout: Duration,
    /// Where its spans belong, in a trace that is recorded.
    pub traceparent: Option<String>,
}

/// What comes back for a feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The answer to its ask.
    pub answer: Answer,
    /// The session after it, where that was wanted and came whole.
    pub snapshot: Option<Snapshot>,
}

/// What a replica answers, in the shape that was asked for.
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

/// Whether a replica can be asked.
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
    /// It was reached before and is lost, or says that what it computes is of no use.
    Down {
        /// For people.
        reason: String,
    },
    /// It was reached, but it can't be this member.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Why a replica did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
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
    /// Nothing at all has come from any replica.
    #[error("nothing has come from it for {milliseconds} ms")]
    Silent {
        /// How long nobody waits.
        milliseconds: u128,
    },
    /// The caller's mistake, as the replica sees it. Never counts against the replica.
    #[error("it refused the request: {message}")]
    Refused {
        /// The replica's sentence.
        message: String,
    },
    /// It has no room for the session now.
    #[error("it has no room: {message}")]
    Exhausted {
        /// The replica's sentence.
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

impl<'a> Origin<'a> {
    /// Where the snapshot was taken, or at the start where there is none.
    pub fn at(snapshot: Option<&'a Snapshot>) -> Self {
        snapshot.map_or(Self::Start, Self::Snapshot)
    }
}

impl Presence {
    /// Whether the replica answers.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Why the replica can't be asked, for people; empty when it can.
    pub fn reason(&self) -> &str {
        match self {
            Self::Up { .. } => "",
            Self::Connecting { reason } | Self::Down { reason } | Self::Refused { reason } => reason,
        }
    }
}
