//! `Complete`: a whole generation as one message.
//!
//! Knows nothing about how tokens are chosen.

use std::sync::Arc;

use chorus_proto::v1::CompleteReply;
use chorus_text::Vocabulary;
use tonic::Status;

use super::call::Call;
use super::generate::{Ending, generate};
use super::telling::{Chosen, Listener};
use crate::ensemble::Ensemble;
use crate::request::Generation;
use crate::telemetry::Method;

/// Generates until the end. Dropped or finished, the sessions close.
pub(super) async fn complete(
    ensemble: Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    call: Call,
) -> Result<CompleteReply, Status> {
    let mut reply = CompleteReply::default();
    // Its future is large, and would be part of every call's.
    let generated = Box::pin(generate(&ensemble, generation, vocabulary, call, &mut reply));
    let Ending { text, participation, end } = generated.await?;
    ensemble.common.answers.given(Method::Complete, end.generated_tokens as usize, &participation);
    reply.text.push_str(&text);
    Ok(CompleteReply { participation: Some(participation), end: Some(end), ..reply })
}

impl Listener for CompleteReply {
    const TAKES_TIME: bool = false;

    async fn token(&mut self, chosen: Chosen) -> Result<(), Status> {
        self.tokens.push(chosen.token);
        self.text.push_str(&chosen.text);
        Ok(())
    }
}
