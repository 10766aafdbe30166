//! [`StepAnswers`]: what the participants of one step answered, ready to be fused.
//!
//! Knows nothing about how the answers came.

use chorus_proto::v1::Participation;

use crate::dense::DenseShare;
use crate::fusion::{FuseError, Fused, Fusion, Row, Scratch, fuse};
use crate::replica::Answer;
use crate::weights::Weights;

/// The answers of one step, in member order.
#[derive(Debug)]
pub(crate) struct StepAnswers {
    /// Member index and answer of each member that was asked.
    pub(crate) answers: Vec<(usize, Answer)>,
    /// Indices of the members that take part in the step, in member order: those, and those that were not asked more.
    pub(crate) participants: Vec<usize>,
    /// Who takes part and who does not, as replies state it.
    pub(crate) participation: Participation,
    /// Until these are dropped, their rows count against what may be under way.
    pub(crate) _budget: Option<DenseShare>,
}

impl StepAnswers {
    /// Leaves a member out, whose answer was unsound.
    pub(crate) fn leave_out(&mut self, index: usize, participation: Participation) {
        self.answers.retain(|(other, _)| *other != index);
        self.participants.retain(|other| *other != index);
        self.participation = participation;
    }

    /// The row of this number of every participant that answered rows, with the member's index.
    pub(crate) fn rows(&self, number: usize) -> Vec<(usize, Row<'_>)> {
        let rows = self.answers.iter().filter_map(|(index, answer)| match answer {
            Answer::Rows(rows) => Some((*index, rows.row(number).ok()?)),
            _ => None,
        });
        rows.collect()
    }

    /// Fuses the rows of this number, and makes what is wanted of the result.
    pub(crate) fn fuse<T>(
        &self,
        number: usize,
        fusion: &Fusion,
        weights: &Weights,
        make: impl FnOnce(Fused<'_>) -> T,
    ) -> Result<T, FuseError> {
        let rows = self.rows(number).into_iter();
        let rows: Vec<_> = rows.map(|(index, row)| (weights.of(index), row)).collect();
        Scratch::lent(|scratch| fuse(fusion, &rows, scratch).map(make))
    }
}
