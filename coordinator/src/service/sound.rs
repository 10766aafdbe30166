//! What is made of whole rows. Whether a member's norm is that of its logits shows only when the probabilities are computed,
//! so a member may turn out here to have broken the protocol: it is lost to the step, and what was wanted is made of the
//! others' rows.
//!
//! Knows nothing about what is made of them.

use tonic::Status;

use crate::ensemble::{compute, fuse_status, step_status};
use crate::fusion::FuseError;
use crate::session::{EnsembleSession, StepAnswers};

/// Runs `work` on the answers of the last step, `numbers` numbers in all. Gives what it makes and the answers that it made
/// it of.
pub(super) async fn make_of_rows<T: Send + 'static>(
    session: &mut EnsembleSession,
    mut answers: StepAnswers,
    numbers: usize,
    work: impl Fn(&StepAnswers) -> Result<T, FuseError> + Clone + Send + 'static,
) -> Result<(T, StepAnswers), Status> {
    loop {
        let work = work.clone();
        let (made, used) = compute(numbers, move || (work(&answers), answers)).await?;
        answers = used;
        let (place, error) = match made {
            Ok(made) => return Ok((made, answers)),
            Err(FuseError::Unsound { place, error }) => (place, error),
            Err(error) => return Err(fuse_status(error, &answers.participation)),
        };
        let Some(index) = answers.answers.get(place).map(|(index, _)| *index) else {
            return Err(fuse_status(FuseError::Unsound { place, error }, &answers.participation));
        };
        let participation = session.discredit(&answers.participants, index, &error);
        answers.leave_out(index, participation.map_err(|error| step_status(&error))?);
    }
}
