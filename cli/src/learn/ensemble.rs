//! [`RunningEnsemble`]: an ensemble that is asked many questions. Knows nothing about what they are.

use anyhow::Context as _;
use chorus_net::Wire;
use chorus_proto::MAX_MESSAGE_BYTES;
use chorus_proto::v1::ensemble_client::EnsembleClient;
use chorus_proto::v1::{Input, StatusReply, StatusRequest, TokenIds, TokenizerRequest, input};
use chorus_text::Vocabulary;

use super::identity::Identity;
use crate::client::{Address, connect, sentence_of_status};

/// An ensemble, its vocabulary, and who it was in the beginning.
#[derive(Clone)]
pub(crate) struct RunningEnsemble {
    pub(crate) address: Address,
    pub(crate) client: EnsembleClient<Wire>,
    pub(crate) identity: Identity,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) status: StatusReply,
}

impl RunningEnsemble {
    /// Connects, and asks who answers.
    ///
    /// # Errors
    /// It can't be reached, or some member was never reached.
    pub(crate) async fn connect(address: &Address) -> anyhow::Result<Self> {
        let mut client = connect(address).await?;
        let refused = |status| sentence_of_status(&status, address);
        let status = client.status(StatusRequest {}).await.map_err(refused)?.into_inner();
        let identity = Identity::of(&status)?;
        let mut chunks = client.tokenizer(TokenizerRequest {}).await.map_err(refused)?.into_inner();
        let mut json = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(refused)? {
            json.extend_from_slice(&chunk.data);
            anyhow::ensure!(
                json.len() <= MAX_MESSAGE_BYTES,
                "the ensemble's tokenizer has more than {MAX_MESSAGE_BYTES} bytes"
            );
        }
        let vocabulary = Vocabulary::from_json(&json).context("the ensemble's tokenizer can't be used")?;
        anyhow::ensure!(
            vocabulary.fingerprint() == identity.vocabulary,
            "the ensemble's tokenizer is {}, but the ensemble speaks {}",
            vocabulary.fingerprint(),
            identity.vocabulary
        );
        Ok(Self { address: address.clone(), client, identity, vocabulary, status })
    }

    /// Whether everybody who was there in the beginning still is, and hosts the same.
    ///
    /// # Errors
    /// The ensemble can't be reached.
    pub(crate) async fn lost(&self) -> anyhow::Result<Option<String>> {
        let mut client = self.client.clone();
        let status = client.status(StatusRequest {}).await;
        let status = status.map_err(|status| sentence_of_status(&status, &self.address))?.into_inner();
        // A member that is away may be the same when it is back.
        Ok(match Identity::of(&status) {
            Ok(identity) => self.identity.lost_in(&identity),
            Err(_) => None,
        })
    }

    /// The ids of a text's tokens.
    ///
    /// # Errors
    /// The vocabulary can't express it.
    pub(crate) fn encode(&self, text: &str, origin: &str) -> anyhow::Result<Vec<u32>> {
        let tokens = self.vocabulary.encode(text);
        tokens.with_context(|| format!("the ensemble's vocabulary can't express the text of {origin}"))
    }
}

/// Tokens as the input of a request.
pub(crate) fn input_of(tokens: &[u32]) -> Option<Input> {
    let ids = tokens.iter().map(|token| i64::from(*token)).collect();
    Some(Input { input: Some(input::Input::Tokens(TokenIds { ids })) })
}
