//! [`SpareRows`]: where rows are written that do not arrive as this machine reads them. Knows nothing about rows.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

/// The memory that a link's rows were written to before. It is written again when those are gone.
#[derive(Debug, Clone, Default)]
pub(super) struct SpareRows(Arc<Mutex<BytesMut>>);

impl SpareRows {
    /// Lends it. Whoever comes in the meantime gets fresh memory and leaves that instead: nobody waits.
    pub(super) fn lend<T>(&self, work: impl FnOnce(&mut BytesMut) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spare = mem::take(&mut *lock());
        let done = work(&mut spare);
        *lock() = spare;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_is_lent_again_and_whoever_comes_in_between_gets_something_else() {
        let spare = SpareRows::default();
        let place = |spare: &mut BytesMut| {
            spare.reserve(100);
            spare.as_ptr() as usize
        };
        let (first, between) = spare.lend(|lent| (place(lent), spare.clone().lend(place)));
        assert_ne!(first, between);
        assert_eq!(spare.lend(place), first, "the last one that came back");
    }
}
