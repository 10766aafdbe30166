//! Throughput over time, in slices of equal length. Knows nothing about what came before the window.

use std::time::Duration;

/// How many slices a window has, so that a picture of it is neither coarse nor noisy.
const SLICES: u32 = 60;
/// No slice is shorter, so that a slice still has something in it.
const SHORTEST: Duration = Duration::from_millis(200);

/// What came in one slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slice {
    /// Calls that were answered.
    pub answers: u64,
    /// Tokens that were generated or scored.
    pub tokens: u64,
    /// Calls that failed.
    pub errors: u64,
}

/// The slices of a window, as far as something came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    slice: Duration,
    slices: Vec<Slice>,
}

impl Timeline {
    /// Of a window of this length.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { slice: (window / SLICES).max(SHORTEST), slices: Vec::new() }
    }

    /// The slice that a moment, as a time since the window's start, belongs to.
    pub fn at(&mut self, moment: Duration) -> &mut Slice {
        let index = (moment.as_nanos() / self.slice.as_nanos()) as usize;
        if index >= self.slices.len() {
            self.slices.resize(index + 1, Slice::default());
        }
        &mut self.slices[index]
    }

    /// Takes in another timeline of the same window.
    pub fn merge(&mut self, other: &Self) {
        if self.slices.len() < other.slices.len() {
            self.slices.resize(other.slices.len(), Slice::default());
        }
        for (slice, other) in self.slices.iter_mut().zip(&other.slices) {
            slice.answers += other.answers;
            slice.tokens += other.tokens;
            slice.errors += other.errors;
        }
    }

    /// How long a slice is.
    #[must_use]
    pub fn slice_length(&self) -> Duration {
        self.slice
    }

    /// The slices, in time.
    #[must_use]
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_counted_in_its_slice_and_slices_of_threads_add_up() {
        let window = Duration::from_secs(60);
        let mut one = Timeline::new(window);
        one.at(Duration::ZERO).tokens += 2;
        one.at(Duration::from_millis(999)).tokens += 1;
        let mut other = Timeline::new(window);
        other.at(Duration::from_millis(2000)).answers += 1;
        one.merge(&other);
        let slice = |answers, tokens| Slice { answers, tokens, errors: 0 };
        assert_eq!(one.slices(), [slice(0, 3), slice(0, 0), slice(1, 0)]);
        assert_eq!(Timeline::new(Duration::from_secs(1)).slice_length(), SHORTEST);
    }
}
