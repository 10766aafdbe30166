//! [`HalfOpen`]: the handshakes that go on at a time. Knows nothing about what they are.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// Handshakes at a time. Each holds some 20 to 40 KB.
const MOST: usize = 1024;

/// Where there is no place left the oldest handshake gives up its own: whoever begins many and ends none can't keep others
/// from theirs, unless it begins [`MOST`] in the time that one of these takes.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    places: Mutex<VecDeque<oneshot::Sender<Infallible>>>,
}

/// The place of one handshake: it fails once that has to give it up. Dropped, it is free.
pub(crate) type Place = oneshot::Receiver<Infallible>;

impl HalfOpen {
    pub(crate) fn enter(&self) -> Place {
        let (sender, place) = oneshot::channel();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST {
            places.retain(|place| !place.is_closed());
        }
        if places.len() >= MOST {
            places.pop_front();
        }
        places.push_back(sender);
        place
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn the_oldest_gives_up_its_place_and_only_where_there_is_no_other() {
        let half_open = HalfOpen::default();
        let mut places: Vec<Place> = (0..MOST).map(|_| half_open.enter()).collect();
        drop(places.remove(7));
        let mut held = half_open.enter();
        assert!(places.iter_mut().all(|place| place.try_recv() == Err(TryRecvError::Empty)));
        let _another = half_open.enter();
        assert_eq!(places[0].try_recv(), Err(TryRecvError::Closed));
        assert!(places[1..].iter_mut().all(|place| place.try_recv() == Err(TryRecvError::Empty)));
        assert_eq!(held.try_recv(), Err(TryRecvError::Empty));
    }
}
