//! Answers of many messages: `Generate`, a message for each token as soon as it is chosen, `Distributions`, and `Tokenizer`.
//!
//! Knows nothing about how tokens are chosen or what distributions say.

use chorus_proto::v1::{DistributionsReply, GenerateReply, TokenizerChunk};
use chorus_text::Vocabulary;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::call::Call;
use super::generate::{Ending, generate};
use super::replies::{Replies, send, until_the_end};
use super::telling::{Chosen, Listener};
use super::{Admitted, distributions};
use crate::request::{Distributions, Generation};
use crate::telemetry::Method;

/// Bytes of a tokenizer in one message.
const TOKENIZER_CHUNK: usize = 1024 * 1024;

/// Generates until the end and says the last word. Dropped or finished, the sessions close and the place is free.
pub(super) async fn generation(admitted: Admitted<Generation>, replies: Replies<GenerateReply>, call: Call) {
    let Admitted { _place, ensemble, checked: generation, vocabulary } = admitted;
    let mut listener = &replies;
    let work = async {
        // Its future is large, and would be moved with every one around it.
        let generated = Box::pin(generate(&ensemble, generation, vocabulary, call, &mut listener));
        let ending = generated.await?;
        let tokens = ending.end.generated_tokens as usize;
        ensemble.common.answers.given(Method::Generate, tokens, &ending.participation);
        Ok(Some(last_message(ending)))
    };
    until_the_end(&ensemble, &replies, call, work).await;
}

/// Sends all distributions. Dropped or finished, the session closes and the place is free.
pub(super) async fn distributions(
    admitted: Admitted<Distributions>,
    replies: Replies<DistributionsReply>,
    call: Call,
) {
    let Admitted { _place, ensemble, checked: wanted, vocabulary } = admitted;
    let work = async {
        let sent = distributions::distributions(&ensemble, wanted, vocabulary, call, &replies).await;
        sent.map(|()| None)
    };
    until_the_end(&ensemble, &replies, call, work).await;
}

/// A tokenizer in pieces, each of which is made when there is room for it.
pub(super) fn tokenizer(vocabulary: Vocabulary) -> impl Stream<Item = Result<TokenizerChunk, Status>> {
    let pieces = vocabulary.to_json().len().div_ceil(TOKENIZER_CHUNK);
    stream::iter(0..pieces).map(move |piece| {
        let data = vocabulary.to_json().as_bytes().chunks(TOKENIZER_CHUNK).nth(piece);
        Ok(TokenizerChunk { data: data.unwrap_or_default().to_vec().into() })
    })
}

impl Listener for &Replies<GenerateReply> {
    async fn token(&mut self, Chosen { token, text, participation }: Chosen) -> Result<(), Status> {
        let reply = GenerateReply { token: Some(token), text, participation: Some(participation), end: None };
        send(self, reply).await
    }
}

fn last_message(ending: Ending) -> GenerateReply {
    let Ending { text, participation, end } = ending;
    GenerateReply { token: None, text, participation: Some(participation), end: Some(end) }
}
