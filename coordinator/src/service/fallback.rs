//! Who answers in place of the ensemble when its quorum is gone: a model of its own, for example a student of the ensemble.
//!
//! Knows nothing about what it is asked.

use std::sync::Arc;

use chorus_proto::v1::{ErrorCode, Fallback, MissingMember, Participation};
use tonic::{Code, Status};

use crate::ensemble::Ensemble;
use crate::failure::status;
use crate::request::Fusing;

/// Whoever answers a request instead, since it failed in this way; it is an ensemble of one member.
///
/// # Errors
/// The failure, where nobody does.
pub(super) fn instead(
    ensemble: &Ensemble,
    fusing: &Fusing,
    failure: Status,
) -> Result<Arc<Ensemble>, Status> {
    let Some(fallback) = ensemble.fallback.as_ref().filter(|_| fusing.allow_degraded) else {
        return Err(failure);
    };
    // Nothing else is UNAVAILABLE where a request is carried out.
    if failure.code() != Code::Unavailable {
        return Err(failure);
    }
    match fallback.roster.can_answer() {
        Ok(()) => Ok(Arc::clone(fallback)),
        Err(error) => {
            let message = format!("{}; nor can the fallback answer: {error}", failure.message());
            Err(status(ErrorCode::Unavailable, message))
        }
    }
}

/// Says of the fallback's answer that it is not that of the ensemble.
pub(super) fn mark(participation: &mut Participation, ensemble: &Ensemble) {
    let members = ensemble.roster.members.iter().map(|member| {
        let presence = member.presence();
        let reason = if presence.is_up() { "the others are no quorum" } else { presence.reason() };
        MissingMember {
            name: member.name().to_owned(),
            reason: reason.to_owned(),
            ..MissingMember::default()
        }
    });
    participation.missing = members.collect();
    participation.expectation = None;
    let name = participation.participants.first().cloned().unwrap_or_default();
    participation.fallback = Some(Fallback { name, ..Fallback::default() });
}
