//! Hostile workers: whatever they answer, what is taken of it is sound, what is not is refused in one line, and nobody waits
//! for ever.

mod answers;
mod cards;
mod streams;

/// Of an error that a worker caused, in characters.
const LONGEST_SENTENCE: usize = 500;
