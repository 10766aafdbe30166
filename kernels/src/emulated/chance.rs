//! Chance for those who emulate devices: what may happen now or later happens now or later. Knows nothing about what that is.

use std::cell::Cell;

/// The same events each time, so that what fails fails again (xorshift64).
#[derive(Debug)]
pub struct Chance(Cell<u64>);

impl Default for Chance {
    fn default() -> Self {
        // Any seed but 0.
        Self(Cell::new(0x9e37_79b9_7f4a_7c15))
    }
}

impl Chance {
    /// Whether it happens: once in four times.
    pub fn happens(&self) -> bool {
        let mut number = self.0.get();
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        self.0.set(number);
        number % 4 == 1
    }

    /// Nothing happens any more.
    pub fn never(&self) {
        self.0.set(0);
    }
}
