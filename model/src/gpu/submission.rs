//! Calls that were launched, and whose answers nobody has taken in yet. Knows nothing about what they compute.

use std::collections::VecDeque;

use super::launcher::Mark;
use super::slots::Slot;

/// A call that was launched.
#[derive(Debug)]
pub(super) struct Submission {
    /// Which side of the host's memory it has.
    pub(super) side: usize,
    /// The slots that it writes.
    pub(super) slots: Vec<u32>,
    pub(super) computed: Mark,
    /// Behind the copy of whole rows, where there are any.
    pub(super) copied: Option<Mark>,
    /// Whether the device has failed while it was at it.
    pub(super) is_lost: bool,
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Submissions(VecDeque<Submission>);

impl Submissions {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, submission: Submission) {
        self.0.push_back(submission);
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Submission> {
        self.0.pop_front()
    }

    /// A side that none of them has.
    pub(super) fn free_side(&self) -> Option<usize> {
        (0..2).find(|side| self.0.iter().all(|submission| submission.side != *side))
    }

    /// Behind all of them.
    pub(super) fn computed(&self) -> Option<&Mark> {
        self.0.back().map(|last| &last.computed)
    }

    /// Behind the one that writes a slot.
    pub(super) fn makes(&self, slot: &Slot) -> Option<&Mark> {
        let makes = |submission: &&Submission| submission.slots.contains(&slot.index());
        self.0.iter().rev().find(makes).map(|submission| &submission.computed)
    }

    /// The device has failed: nothing can be relied on that it was at.
    pub(super) fn lose(&mut self) {
        self.0.iter_mut().for_each(|submission| submission.is_lost = true);
    }
}
