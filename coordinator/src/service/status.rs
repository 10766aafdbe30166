//! `Status`: what the ensemble knows about itself.
//!
//! Knows nothing about requests in progress beyond their number.

use std::sync::atomic::Ordering;

use chorus_proto::v1::{self, MemberStatus, PlanTraffic, StatusReply, member_status::Health};

use crate::ensemble::Ensemble;
use crate::member::Presence;
use crate::plan::PlanKind;
use crate::roster::Seat;
use crate::traffic::TrafficCounts;

pub(super) fn status(ensemble: &Ensemble) -> StatusReply {
    let roster = &ensemble.roster;
    let vocabulary = ensemble.agreement.vocabulary();
    let members = roster.seats.iter().enumerate();
    StatusReply {
        members: members.map(|(index, seat)| member_status(seat, roster.weights.of(index))).collect(),
        rule: v1::Rule::from(ensemble.fusion.rule).into(),
        threshold: ensemble.fusion.threshold,
        quorum: Some(v1::Quorum {
            members: u32::try_from(roster.quorum.members).unwrap_or(u32::MAX),
            weight: roster.quorum.weight,
        }),
        limits: Some(v1::RequestLimits {
            max_input_tokens: ensemble.limits.max_input_tokens,
            max_generated_tokens: ensemble.limits.max_generated_tokens,
            max_input_bytes: ensemble.limits.max_input_bytes,
            max_sessions: ensemble.limits.max_sessions,
            max_top_n: ensemble.limits.max_top_n,
            max_waiting: ensemble.limits.max_waiting,
            max_wait_ms: ensemble.limits.max_wait_ms,
            max_tokens_in_progress: ensemble.limits.max_tokens_in_progress,
        }),
        vocabulary_size: vocabulary.as_ref().map_or(0, chorus_text::Vocabulary::len),
        vocabulary_fingerprint: vocabulary.map_or_else(String::new, |known| known.fingerprint().to_owned()),
        sessions: ensemble.admission.in_progress(),
        waiting: ensemble.admission.waiting(),
        tokens_in_progress: ensemble.admission.tokens_in_progress(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        serving: roster.can_answer().is_ok() && !ensemble.draining.is_cancelled(),
    }
}

fn member_status(seat: &Seat, weight: f64) -> MemberStatus {
    let presence = seat.member.presence().borrow().clone();
    let card = seat.member.card();
    let card = card.as_deref();
    MemberStatus {
        name: seat.member.name().to_owned(),
        address: seat.member.address().to_owned(),
        weight,
        health: health(&presence).into(),
        reason: presence.reason().to_owned(),
        model: card.map_or_else(String::new, |card| card.name.clone()),
        architecture: card.map_or_else(String::new, |card| card.architecture.clone()),
        parameters: card.map_or(0, |card| card.parameters),
        device: card.map_or_else(String::new, |card| card.device.clone()),
        start: card.and_then(|card| card.start),
        sessions: seat.sessions.load(Ordering::Relaxed),
        traffic: PlanKind::ALL.into_iter().filter_map(|plan| traffic(seat, plan)).collect(),
    }
}

/// What a plan took of the member's link, if it did.
fn traffic(seat: &Seat, plan: PlanKind) -> Option<PlanTraffic> {
    let counts = seat.member.traffic(plan);
    (counts != TrafficCounts::default()).then(|| PlanTraffic {
        plan: plan.name().to_owned(),
        bytes_sent: counts.sent,
        bytes_received: counts.received,
        tokens: counts.tokens,
        output_rows: counts.rows,
    })
}

fn health(presence: &Presence) -> Health {
    match presence {
        Presence::Connecting { .. } => Health::Connecting,
        Presence::Up { .. } => Health::Up,
        Presence::Down { .. } => Health::Down,
        Presence::Refused { .. } => Health::Refused,
    }
}
