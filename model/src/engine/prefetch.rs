//! Weights asked for before they are multiplied: an engine at small batches waits for memory, and a processor's own guesses
//! stop at the end of each page.
//!
//! The rows of a batch pass over weights in tiles, one behind the other. The first tile meets weights that stand in no near
//! cache and asks for what it needs itself a little later. The tiles behind it find them there: while they compute, memory
//! would idle, so each asks for its share of the weights that come next. Nothing here changes what is computed; knows
//! nothing about how.

/// Bytes of a cache line.
const LINE: usize = 64;

/// How many tiles there must be for them to ask for what comes next. One or two are done with their part before memory has
/// delivered another, and what they ask for keeps what the first needs waiting.
const TILES: usize = 3;

/// What one tile asks for, line by line while it passes over its weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// How far behind the weights that are multiplied the tile asks, in bytes; 0 for not at all.
    near: usize,
    /// The next line of the weights that come next.
    next: *const i8,
    /// How many lines of them are left for this tile,
    left: usize,
    /// and how many of them it asks for each time.
    pace: usize,
}

/// One of the tiles that a block of rows is cut into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    /// The first row of the block.
    pub(super) block: usize,
    /// Which tile of the block.
    pub(super) index: usize,
    /// How many there are.
    pub(super) tiles: usize,
}

impl Ahead {
    const NOTHING: Self = Self { near: 0, next: std::ptr::null(), left: 0, pace: 0 };

    /// What a tile asks for in `times` times; what comes next stands behind `weights` and is as large. Rows of later blocks find
    /// the weights where those of the first have left them.
    #[inline(always)]
    pub(super) fn of<T>(
        weights: &[T],
        Tile { block, index, tiles }: Tile,
        times: usize,
        near: usize,
    ) -> Self {
        if block > 0 {
            return Self::NOTHING;
        }
        let near = if index == 0 { near } else { 0 };
        if tiles < TILES {
            return Self { near, ..Self::NOTHING };
        }
        let share = (size_of_val(weights) / LINE).div_ceil(tiles);
        let behind = weights.as_ptr_range().end.cast::<i8>();
        let next = behind.wrapping_add(index * share * LINE);
        Self { near, next, left: share, pace: share.div_ceil(times.max(1)) }
    }

    /// Asks for what this tile needs itself a little later.
    #[inline(always)]
    pub(super) fn ask_near<T>(&self, weights: &T) {
        let from = std::ptr::from_ref(weights).cast::<i8>().wrapping_add(self.near);
        (0..size_of::<T>()).step_by(LINE).for_each(|at| prefetch::<true>(from.wrapping_add(at)));
    }

    /// Asks for its share, while these weights are multiplied.
    #[inline(always)]
    pub(super) fn ask<T>(&mut self, weights: &T) {
        if self.near > 0 {
            self.ask_near(weights);
        }
        if self.left > 0 {
            (0..self.pace).for_each(|line| prefetch::<false>(self.next.wrapping_add(line * LINE)));
            self.next = self.next.wrapping_add(self.pace * LINE);
            self.left = self.left.saturating_sub(self.pace);
        }
    }
}

/// Into the first cache, or into the second.
#[inline(always)]
fn prefetch<const FIRST: bool>(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees, and no address makes it fail.
        unsafe {
            if FIRST {
                _mm_prefetch::<_MM_HINT_T0>(address);
            } else {
                _mm_prefetch::<_MM_HINT_T1>(address);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines behind the weights that each tile asks for, as often as it may.
    fn asked_for(weights: &[[u8; LINE]], tiles: usize, times: usize) -> Vec<usize> {
        let behind = weights.as_ptr_range().end.addr();
        let mut lines = Vec::new();
        for index in 0..tiles {
            let mut ahead = Ahead::of(weights, Tile { block: 0, index, tiles }, times, 0);
            for weights in weights.iter().take(times) {
                let first = (ahead.next.addr().wrapping_sub(behind)) / LINE;
                let before = ahead.left;
                ahead.ask(weights);
                lines.extend(first..first + if before > 0 { ahead.pace } else { 0 });
            }
        }
        lines
    }

    #[test]
    fn the_tiles_together_ask_for_all_that_comes_next_and_little_more() {
        for (lines, tiles, times) in [(512, 3, 128), (512, 8, 128), (1500, 11, 375), (7, 5, 2), (512, 3, 1)] {
            let weights = vec![[0; LINE]; lines];
            let asked = asked_for(&weights, tiles, times);
            assert!((0..lines).all(|line| asked.contains(&line)), "{lines} {tiles} {times}");
            assert!(asked.len() <= lines + 2 * tiles * (1 + lines / (tiles * times)), "{}", asked.len());
        }
    }

    #[test]
    fn few_tiles_ask_for_what_the_first_needs_itself() {
        let weights = [[0; LINE]; 16];
        assert!(asked_for(&weights, 2, 16).is_empty());
        let near = |index| Ahead::of(&weights, Tile { block: 0, index, tiles: 2 }, 16, 4096).near;
        assert_eq!((near(0), near(1)), (4096, 0));
    }

    #[test]
    fn rows_of_later_blocks_ask_for_nothing() {
        let ahead = Ahead::of(&[[0; LINE]; 16], Tile { block: 48, index: 0, tiles: 8 }, 16, 4096);
        assert_eq!((ahead.near, ahead.left), (0, 0));
    }
}
