//! What a text shows of the members before anything is asked about what follows it: each member's log-probability of each of its
//! tokens, for weights that follow the text.
//!
//! Knows nothing about what the weights are used for.

use tonic::Status;

use crate::ensemble::step_status;
use crate::plan::{Plan, pieces};
use crate::replica::Answer;
use crate::session::EnsembleSession;
use crate::weights::Weighting;

/// Appends tokens to the session and observes them.
pub(super) async fn read(
    session: &mut EnsembleSession,
    tokens: &[u32],
    weighting: &mut Weighting,
    vocabulary_size: usize,
) -> Result<(), Status> {
    let ask = Plan::Targets.each();
    let most = session.max_feed_tokens(&ask);
    for piece in pieces(&ask, tokens.len(), vocabulary_size, most) {
        let piece = tokens.get(piece).unwrap_or_default();
        let answers = session.step(piece, &ask).await.map_err(|error| step_status(&error))?;
        let said = answers.answers.iter().filter_map(|(index, answer)| match answer {
            Answer::Targets(log_probs) => Some((*index, log_probs.as_slice())),
            _ => None,
        });
        let said: Vec<(usize, &[f64])> = said.collect();
        for position in 0..piece.len() {
            let of_token = said.iter().filter_map(|(index, said)| Some((*index, *said.get(position)?)));
            weighting.observe(&of_token.collect::<Vec<_>>());
        }
    }
    Ok(())
}
