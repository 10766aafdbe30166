//! What a call tells the device: tokens, slots, and for each wanted distribution what is asked of it, as words that one kernel
//! fetches. Knows nothing about how anything is computed.

use chorus_kernels::{Address, Ask};

use super::memory::Region;

/// Where in the words a list begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Words as they are written.
#[derive(Debug)]
pub(super) struct Words<'a> {
    words: &'a mut [u32],
    used: usize,
}

/// Words of an ask.
const ASK_WORDS: usize = size_of::<Ask>() / size_of::<u32>();

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a mut [u32]) -> Self {
        Self { words, used: 0 }
    }

    /// Adds a list. The room is planned for the largest call: what is beyond it is left out, and a kernel never asked for it.
    pub(super) fn list(&mut self, numbers: impl IntoIterator<Item = u32>) -> Place {
        let place = Place(self.used);
        for number in numbers {
            if let Some(word) = self.words.get_mut(self.used) {
                *word = number;
                self.used += 1;
            }
        }
        place
    }

    /// Adds asks, aligned as they have to be.
    pub(super) fn asks(&mut self, asks: &[Ask]) -> Place {
        self.used = self.used.next_multiple_of(2);
        let place = Place(self.used);
        for ask in asks {
            self.list([ask.kind as u32, ask.target, ask.count, ask.ids, ask.list, ask.room]);
            let bits = ask.number.to_bits();
            self.list([bits as u32, (bits >> 32) as u32]);
        }
        place
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl Place {
    /// Where that is on the device, whose words begin there.
    pub(super) fn at(self, words: Region, memory: Address) -> Address {
        words.at(memory).plus(self.0 * size_of::<u32>())
    }

    /// So many words behind.
    pub(super) fn behind(self, words: usize) -> Self {
        Self(self.0 + words)
    }
}

/// The most words of a call of so many tokens, rows of logits and ids.
pub(super) fn most_words(tokens: usize, rows: usize, ids: usize) -> usize {
    // Tokens, the steps' beginnings, two slots for each row.
    let block = tokens + (tokens + 1) + 2 * tokens;
    block + rows + (1 + rows * ASK_WORDS) + ids
}

#[cfg(test)]
mod tests {
    use chorus_kernels::AskKind;

    use super::*;

    #[test]
    fn asks_are_written_as_kernels_read_them() {
        let ask = |number| Ask { kind: AskKind::Top, target: 7, count: 3, ids: 5, list: 9, room: 11, number };
        let asks = [ask(-0.5), ask(f64::INFINITY)];
        let mut buffer = vec![0_u64; 20];
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut buffer);
        let mut words = Words::new(words);
        assert_eq!(words.list([1]), Place(0));
        assert_eq!((words.asks(&asks), words.used()), (Place(2), 2 + 2 * ASK_WORDS));
        // SAFETY: the words are aligned to 8 bytes there, and every bit pattern of an ask's kind is one that was written.
        let read = unsafe { std::slice::from_raw_parts(buffer.as_ptr().add(1).cast::<Ask>(), 2) };
        assert_eq!(read, asks);
    }

    #[test]
    fn what_is_beyond_the_room_is_left_out() {
        let mut buffer = [0; 3];
        let mut words = Words::new(&mut buffer);
        words.list([1, 2]);
        words.list([3, 4]);
        assert_eq!((words.used(), buffer), (3, [1, 2, 3]));
    }
}
