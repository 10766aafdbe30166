//! `Status`: what the ensemble knows about itself.
//!
//! Knows nothing about requests in progress beyond their number.

use std::sync::atomic::Ordering;

use chorus_proto::v1::{
    self, LearnedWeights, MemberStatus, PlanTraffic, ReplicaStatus, StatusReply, member_status::Health,
};

use crate::config::Config;
use crate::ensemble::Ensemble;
use crate::member::{Member, Seat};
use crate::plan::PlanKind;
use crate::replica::Presence;
use crate::traffic::TrafficCounts;

pub(super) fn status(ensemble: &Ensemble) -> StatusReply {
    let roster = &ensemble.roster;
    let Config { fusion, limits, .. } = &ensemble.config;
    let vocabulary = ensemble.common.agreement.vocabulary();
    let members = roster.members.iter().enumerate();
    let learned = ensemble.learned();
    let in_force = learned.as_ref().ok().copied().flatten();
    let of_rule = in_force.and_then(|learned| learned.rule(fusion.rule));
    let weights = of_rule.map_or(&roster.weights, |sets| sets.whole());
    StatusReply {
        members: members.map(|(index, member)| member_status(member, weights.of(index))).collect(),
        rule: v1::Rule::from(fusion.rule).into(),
        threshold: fusion.threshold,
        quorum: Some(roster.quorum.into()),
        limits: Some(v1::RequestLimits {
            max_input_tokens: limits.max_input_tokens,
            max_generated_tokens: limits.max_generated_tokens,
            max_input_bytes: limits.max_input_bytes,
            max_sessions: limits.max_sessions,
            max_top_n: limits.max_top_n,
            max_beam_size: limits.max_beam_size,
            max_candidates: limits.max_candidates,
            max_waiting: limits.max_waiting,
            max_wait_ms: limits.max_wait_ms,
            max_tokens_in_progress: limits.max_tokens_in_progress,
        }),
        vocabulary_size: vocabulary.as_ref().map_or(0, chorus_text::Vocabulary::len),
        vocabulary_fingerprint: vocabulary.map_or_else(String::new, |known| known.fingerprint().to_owned()),
        sessions: ensemble.common.admission.in_progress(),
        waiting: ensemble.common.admission.waiting(),
        tokens_in_progress: ensemble.common.admission.tokens_in_progress(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        serving: ensemble.can_answer().is_ok() && !ensemble.common.draining.is_cancelled(),
        revision: ensemble.revision,
        learned: match &learned {
            Ok(None) => None,
            Ok(Some(learned)) => Some(LearnedWeights {
                in_force: true,
                reason: String::new(),
                rules: learned.rules().map(|rule| v1::Rule::from(rule).into()).collect(),
            }),
            Err(mismatch) => {
                Some(LearnedWeights { in_force: false, reason: mismatch.to_string(), rules: Vec::new() })
            }
        },
        fallback: ensemble
            .fallback
            .as_ref()
            .and_then(|fallback| fallback.roster.members.first().map(|member| member_status(member, 1.0))),
        activity: Some(ensemble.common.activity.told()),
        prefix_cache: Some(ensemble.common.prefixes.status()),
    }
}

fn member_status(member: &Member, weight: f64) -> MemberStatus {
    let presence = member.presence();
    let card = member.card();
    let card = card.as_deref();
    MemberStatus {
        name: member.name().to_owned(),
        weight,
        health: health(&presence).into(),
        reason: presence.reason().to_owned(),
        model: card.map_or_else(String::new, |card| card.name.clone()),
        architecture: card.map_or_else(String::new, |card| card.architecture.clone()),
        parameters: card.map_or(0, |card| card.parameters),
        model_fingerprint: card.map_or_else(String::new, |card| card.model_fingerprint.clone()),
        start: card.and_then(|card| card.start),
        sessions: member.sessions.load(Ordering::Relaxed),
        traffic: PlanKind::ALL.into_iter().filter_map(|plan| traffic(member, plan)).collect(),
        replicas: member.seats().iter().map(|seat| replica_status(seat)).collect(),
        recovery: Some(v1::Recovery {
            takeovers: member.counts.takeovers.get(),
            recomputed_tokens: member.counts.recomputed_tokens.get(),
            hedges: member.counts.hedges.get(),
            hedges_won: member.counts.hedges_won.get(),
        }),
    }
}

fn replica_status(seat: &Seat) -> ReplicaStatus {
    let presence = seat.replica.presence().borrow().clone();
    let card = seat.replica.card();
    let card = card.as_deref();
    ReplicaStatus {
        address: seat.replica.address().to_owned(),
        health: health(&presence).into(),
        reason: presence.reason().to_owned(),
        device: card.map_or_else(String::new, |card| card.device.clone()),
        version: card.map_or_else(String::new, |card| card.version.clone()),
        sessions: seat.sessions.load(Ordering::Relaxed),
    }
}

/// What a plan took of the member's links, if it did.
fn traffic(member: &Member, plan: PlanKind) -> Option<PlanTraffic> {
    let counts = member.traffic(plan);
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
