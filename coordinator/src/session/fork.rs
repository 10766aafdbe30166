//! Sessions that branch: a second sequence that goes on from where a first one stands.
//!
//! Knows nothing about what the branches are for.

use super::alarm::Alarm;
use super::awaited::Boxes;
use super::place::Place;
use super::{EnsembleSession, Rejoin};

impl EnsembleSession {
    /// A session with the same tokens, at every member that is in step; both go on by themselves. Nobody else comes into
    /// the new one: members that are on their way back come back into this one only.
    pub(crate) fn fork(&mut self) -> Self {
        self.welcome_back();
        let members = self.roster.members.iter();
        let places = members.zip(&self.places).map(|(member, place)| match place {
            Place::InStep(session) => Place::InStep(session.fork()),
            Place::Straggling(_) | Place::CatchingUp { .. } | Place::Out { .. } => {
                Place::Out { reason: place.reason(&member.presence()) }
            }
        });
        Self {
            places: places.collect(),
            roster: self.roster.clone(),
            terms: self.terms,
            rejoin: Rejoin::Never,
            transcript: self.transcript.fork(),
            vocabulary_size: self.vocabulary_size,
            losses: self.losses.clone(),
            boxes: Boxes::default(),
            alarm: Alarm::default(),
            first_took: None,
        }
    }

    /// Goes on without these members, each with the reason why.
    pub(crate) fn leave_out<'a>(&mut self, members: impl IntoIterator<Item = (usize, &'a str)>) {
        for (index, reason) in members {
            if let Some(place) = self.places.get_mut(index) {
                *place = Place::Out { reason: reason.to_owned() };
            }
        }
    }
}
