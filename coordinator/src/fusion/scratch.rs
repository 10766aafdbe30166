//! [`Scratch`]: what fusing and choosing write on, used again and again: a step needs no memory once a step of its size was
//! there. Knows nothing about what is written.

use std::cell::Cell;

use super::leading::Candidate;

/// Buffers that grow to the largest vocabulary and the most members that they have seen: some 16 bytes a token.
#[derive(Debug, Default)]
pub struct Scratch {
    /// For each member: its share, its factor in a sum of exponentials, and what its own exponentials sum to.
    pub(super) shares: Vec<f64>,
    pub(super) factors: Vec<f64>,
    pub(super) sums: Vec<f64>,
    /// For each token: about its probability, its score, its votes.
    pub(super) values: Vec<f32>,
    pub(super) scores: Vec<f64>,
    pub(super) votes: Vec<u32>,
    pub(super) spare: Spare,
}

/// What whoever chooses from a distribution writes on.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    /// For each token: its weight.
    pub(crate) weights: Vec<f32>,
    /// What blocks of weights sum to.
    pub(crate) sums: Vec<f64>,
    /// Tokens that are nearly as likely as the last that is kept.
    pub(crate) edge: Vec<Candidate>,
    /// Those of them that are kept, in the order of ids.
    pub(crate) kept: Vec<u32>,
    /// For each token: about its probability in a distribution that is bent.
    pub(crate) adjusted: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    /// Lends this thread's own. Whoever asks for it within `work` gets a fresh one.
    ///
    /// ```
    /// use chorus_coordinator::fusion::{FuseError, Fusion, Scratch, fuse};
    ///
    /// let fused = Scratch::lent(|scratch| fuse(&Fusion::default(), &[], scratch).map(|_| ()));
    /// assert_eq!(fused, Err(FuseError::NoParticipants));
    /// ```
    pub fn lent<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        let mut scratch = SCRATCH.take();
        let done = work(&mut scratch);
        SCRATCH.set(scratch);
        done
    }
}
