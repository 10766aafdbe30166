//! Where the members of a session stand, for whoever keeps it. Knows nothing about where it is kept.

use super::EnsembleSession;
use super::place::Place;
use crate::snapshot::Snapshot;

impl EnsembleSession {
    /// So many tokens no member in step has to read.
    pub(crate) fn least_position(&mut self) -> usize {
        let sessions = self.places.iter_mut().filter_map(Place::in_step);
        sessions.map(|session| session.position()).min().unwrap_or_default()
    }

    /// Where each member in step, by its place, can be taken up again, if it can, and the tokens of which these states are.
    pub(crate) fn states(&mut self) -> (Vec<u32>, Vec<(usize, Option<Snapshot>)>) {
        let places = self.places.iter_mut().enumerate();
        let states = places.filter_map(|(index, place)| Some((index, place.in_step()?.snapshot().cloned())));
        let states: Vec<(usize, Option<Snapshot>)> = states.collect();
        let longest = states.iter().flat_map(|(_, state)| state).map(Snapshot::position).max();
        (self.transcript.part(0..longest.unwrap_or_default()), states)
    }
}
