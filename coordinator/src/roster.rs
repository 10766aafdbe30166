//! [`Roster`]: the members in member order, with what the ensemble needs of them to answer at all.
//!
//! Knows nothing about sessions, requests or how a member is reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use chorus_proto::v1::{ModelCard, Participation};

use crate::dense::DenseBudget;
use crate::member::Member;
use crate::quorum::{Attendance, Quorum, QuorumError};
use crate::weights::Weights;

/// All members, in the order of the configuration.
pub(crate) struct Roster {
    pub(crate) seats: Vec<Arc<Seat>>,
    /// As configured.
    pub(crate) weights: Weights,
    pub(crate) quorum: Quorum,
    /// What rows of whole inputs may be under way.
    pub(crate) dense: DenseBudget,
    /// Every opening of a session at a member gets the next number.
    pub(crate) next_session: AtomicU64,
}

/// One member and what is counted about it.
pub(crate) struct Seat {
    pub(crate) member: Arc<dyn Member>,
    /// Sessions in progress that it takes part in.
    pub(crate) sessions: Arc<AtomicU32>,
}

impl Roster {
    /// `weights` has one weight for each member, in the same order.
    pub(crate) fn new(members: Vec<Arc<dyn Member>>, weights: Weights, quorum: Quorum) -> Self {
        let seat = |member| Arc::new(Seat { member, sessions: Arc::default() });
        Self {
            seats: members.into_iter().map(seat).collect(),
            weights,
            quorum,
            dense: DenseBudget::default(),
            next_session: AtomicU64::new(1),
        }
    }

    /// Whether those who answered may speak for the ensemble. `participation` has the reasons of those who are missing.
    pub(crate) fn check_quorum(&self, participation: &Participation) -> Result<(), QuorumError> {
        let missing = |name: &str| {
            let missing = participation.missing.iter().find(|missing| missing.name == name);
            missing.map(|missing| missing.reason.as_str())
        };
        let attendance = self.seats.iter().enumerate().map(|(index, seat)| Attendance {
            name: seat.member.name(),
            weight: self.weights.of(index),
            missing: missing(seat.member.name()),
        });
        self.quorum.check(&attendance.collect::<Vec<_>>())
    }

    /// Whether enough members are up to answer now.
    pub(crate) fn can_answer(&self) -> Result<(), QuorumError> {
        let presences: Vec<_> =
            self.seats.iter().map(|seat| seat.member.presence().borrow().clone()).collect();
        let attendance = self.seats.iter().zip(&presences).enumerate();
        let attendance = attendance.map(|(index, (seat, presence))| Attendance {
            name: seat.member.name(),
            weight: self.weights.of(index),
            missing: (!presence.is_up()).then(|| presence.reason()),
        });
        self.quorum.check(&attendance.collect::<Vec<_>>())
    }

    /// The card of a member, once it was reached.
    pub(crate) fn card(&self, index: usize) -> Option<Arc<ModelCard>> {
        self.seats.get(index)?.member.card()
    }

    /// Whether a member's model says that this token of the vocabulary with this fingerprint ends a generation. The card
    /// of a member that is away may be of another vocabulary.
    pub(crate) fn is_end_token(&self, token: u32, fingerprint: &str) -> bool {
        let mut cards = self.seats.iter().filter_map(|seat| seat.member.card());
        cards.any(|card| card.end_token == Some(token) && card.vocabulary_fingerprint == fingerprint)
    }
}
