//! Who has which slot of the table of states. A slot is written once, by the step that makes it, and then only read: its
//! handle can be cloned, and it is free again when the last one is gone. Knows nothing about what is in a slot.

use std::sync::{Arc, Mutex, PoisonError};

/// The slots that nobody has.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Mutex<Vec<u32>>>,
    count: usize,
}

/// A state's place in the memory of a device.
#[derive(Debug, Clone)]
pub(crate) struct Slot(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    index: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl Slots {
    /// A table of so many slots, all free.
    pub(super) fn new(count: u32) -> Self {
        // The lowest first.
        Self { free: Arc::new(Mutex::new((0..count).rev().collect())), count: count as usize }
    }

    /// A free slot, if there is one.
    pub(super) fn take(&self) -> Option<Slot> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Slot(Arc::new(Taken { index, free: Arc::clone(&self.free) })))
    }

    /// How many there are, free or not.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether the slot is of this table.
    pub(super) fn has(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&self.free, &slot.0.free)
    }
}

impl Slot {
    pub(super) fn index(&self) -> u32 {
        self.0.index
    }
}

/// The same place, so the same state.
impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_last_handle_is_gone() {
        let slots = Slots::new(2);
        let (one, two) = (slots.take().unwrap(), slots.take().unwrap());
        assert!((one.index(), two.index()) == (0, 1) && slots.take().is_none());
        let same = one.clone();
        assert!(same == one && same != two);
        drop(one);
        assert!(slots.take().is_none());
        drop(same);
        assert_eq!(slots.take().unwrap().index(), 0);
        assert!(slots.has(&two) && !Slots::new(2).has(&two));
    }
}
