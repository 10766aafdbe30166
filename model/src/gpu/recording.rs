//! What tells the launches of one step from those of another. Knows nothing about how they are recorded.

/// Launches that are the same whenever they are made: with one address for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Recording {
    /// Sequences.
    pub(super) rows: usize,
    /// How many distributions, of which hidden vectors, and whether their logits are read again; if there are any.
    pub(super) wanted: Option<(usize, Selection, bool)>,
    /// Which of the two sides of the host's memory.
    pub(super) side: usize,
}

/// Where the hidden vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Selection {
    /// In slots, and nowhere else.
    Slots,
    /// The block's, one after the other as they are wanted.
    Block,
    /// Here and there.
    Mixed,
}
