//! What was done at one member so that the loss of a replica shows nowhere: for Status, and as metrics.
//!
//! Knows nothing about how it is done.

use metrics::Unit;

use crate::counter::Counter;
use crate::replica::ReplicaError;

const TAKEOVERS: &str = "chorus_member_takeovers_total";
const RECOMPUTED: &str = "chorus_member_recomputed_tokens_total";
const HEDGES: &str = "chorus_member_hedges_total";
const HEDGES_WON: &str = "chorus_member_hedges_won_total";
const LOSSES: &str = "chorus_member_losses_total";
const ANSWER: &str = "chorus_member_answer_seconds";

/// Why a session went on without a member, as labels.
const REASONS: [&str; 8] =
    ["lost", "late", "silent", "refused", "exhausted", "unknown_session", "protocol", "not_finite"];

/// Counts since the process started.
pub(crate) struct Counts {
    /// Sessions that went on at another replica, or anew at the same one.
    pub(crate) takeovers: Counter,
    /// Tokens that were fed again for that.
    pub(crate) recomputed_tokens: Counter,
    /// Feeds that were sent to a second replica because the first one took long.
    pub(crate) hedges: Counter,
    /// Those among them that the second one answered first.
    pub(crate) hedges_won: Counter,
    /// How long a short feed took until its answer.
    pub(crate) answer: metrics::Histogram,
    losses: [metrics::Counter; REASONS.len()],
}

impl Counts {
    /// Counts of the member of this name. As metrics they go to whatever recorder is installed now.
    pub(crate) fn new(member: &str) -> Self {
        metrics::describe_counter!(TAKEOVERS, Unit::Count, "Sessions that went on at another replica");
        metrics::describe_counter!(
            RECOMPUTED,
            Unit::Count,
            "Tokens fed again when a session changed its replica"
        );
        metrics::describe_counter!(HEDGES, Unit::Count, "Feeds sent to a second replica, too");
        metrics::describe_counter!(HEDGES_WON, Unit::Count, "Hedges that were answered first");
        metrics::describe_counter!(LOSSES, Unit::Count, "Sessions that went on without a member, by reason");
        metrics::describe_histogram!(
            ANSWER,
            Unit::Seconds,
            "From a feed of a few tokens to a member's answer, wherever it came from"
        );
        let counter =
            |name: &'static str| Counter::new(metrics::counter!(name, "member" => member.to_owned()));
        Self {
            takeovers: counter(TAKEOVERS),
            recomputed_tokens: counter(RECOMPUTED),
            hedges: counter(HEDGES),
            hedges_won: counter(HEDGES_WON),
            answer: metrics::histogram!(ANSWER, "member" => member.to_owned()),
            losses: REASONS
                .map(|reason| metrics::counter!(LOSSES, "member" => member.to_owned(), "reason" => reason)),
        }
    }

    /// A session goes on without the member, for this reason.
    pub(crate) fn lost(&self, error: &ReplicaError) {
        let reason = match error {
            ReplicaError::Lost { .. } => "lost",
            ReplicaError::Late { .. } => "late",
            ReplicaError::Silent { .. } => "silent",
            ReplicaError::Refused { .. } => "refused",
            ReplicaError::Exhausted { .. } => "exhausted",
            ReplicaError::UnknownSession => "unknown_session",
            ReplicaError::Protocol { .. } => "protocol",
            ReplicaError::NotFinite { .. } => "not_finite",
        };
        let losses = REASONS.iter().zip(&self.losses);
        losses.filter(|(of, _)| **of == reason).for_each(|(_, losses)| losses.increment(1));
    }
}
