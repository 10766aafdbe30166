//! A token drawn from the weighted average by drawing the member first: the member that is drawn draws the token, the others
//! only advance.
//!
//! Knows nothing about what the token is for.

use chorus_proto::v1::Participation;
use tonic::Status;

use crate::ensemble::{fuse_status, step_status};
use crate::fusion::FuseError;
use crate::plan::Ask;
use crate::replica::Answer;
use crate::sampling::{drawing_member, uniform};
use crate::session::EnsembleSession;
use crate::weights::Weighting;

/// Appends tokens to the session and draws the one of this index after them.
///
/// Everybody that advances takes part, since it would have drawn with its weight. A member that is lost while it draws is
/// out of the step, and the race among the others says who draws instead. With weights that depend on who takes part that
/// may be somebody else although a token is drawn already, when a member is lost that only advanced.
pub(super) async fn draw(
    session: &mut EnsembleSession,
    tokens: &[u32],
    weighting: &Weighting,
    seed: u64,
    index: u32,
) -> Result<(u32, Participation), Status> {
    let uniform = uniform(seed, index);
    let drawing = |members: &[usize]| {
        let weights = weighting.among(members);
        let weighted = members.iter().map(|member| (*member, weights.of(*member)));
        drawing_member(seed, index, weighted)
    };
    let step = session.step_of_each(tokens, |in_step| {
        let drawing = drawing(in_step);
        move |member| if drawing == Some(member) { Ask::Draw { uniform } } else { Ask::Nothing }
    });
    let mut answers = step.await.map_err(|error| step_status(&error))?;
    loop {
        let Some(member) = drawing(&answers.participants) else {
            return Err(fuse_status(FuseError::NoWeight, &answers.participation));
        };
        let drawn = answers.answers.iter().find_map(|(index, answer)| match answer {
            Answer::Drawn(id) if *index == member => Some(*id),
            _ => None,
        });
        if let Some(id) = drawn {
            return Ok((id, answers.participation));
        }
        let asks = [(member, Ask::Draw { uniform })].into();
        let follow_up = session.follow_up(&answers.participants, &asks).await;
        answers = follow_up.map_err(|error| step_status(&error))?;
    }
}
