//! From an address to a usable stream: connect, read the model card, agree on the vocabulary, attach.
//!
//! Knows nothing about when to try again.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use chorus_net::{Wire, endpoint_at};
use chorus_proto::v1::worker_client::WorkerClient;
use chorus_proto::v1::{AnswerFrame, DescribeRequest, ModelCard, TokenizerRequest};
use chorus_proto::{MAX_MESSAGE_BYTES, shortened};
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::answer::LONGEST_REASON;
use super::attachment::Attachment;
use crate::agreement::{Delegate, Disagreement};
use crate::network::Network;
use crate::traffic::Traffic;

/// For each half of the handshake, before and after the members before this one had their turn; a tokenizer of tens of
/// megabytes included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer whose process is stopped or whose machine is gone is found by these two together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Room for a whole reply frame, so that rows of a large vocabulary never wait for window updates.
const STREAM_WINDOW: u32 = 64 << 20;
const CONNECTION_WINDOW: u32 = 128 << 20;
const MAX_HTTP2_FRAME: u32 = 1 << 20;
/// Of each of the words in a card, in characters; a fingerprint has 64.
const LONGEST_NAME: usize = 200;
const MAX_TOKENIZER_BYTES: usize = 256 << 20;

/// An address that can't be one.
#[derive(Debug, thiserror::Error)]
#[error("the address {address:?} can't be used: it must look like http://host:port")]
pub struct InvalidAddress {
    /// As configured.
    pub address: String,
    /// What the transport says.
    #[source]
    source: Option<tonic::transport::Error>,
}

impl InvalidAddress {
    /// One that nothing was made of.
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), source: None }
    }
}

/// The way to a worker.
#[derive(Debug, Clone)]
pub(super) struct Route {
    endpoint: Endpoint,
    /// As configured.
    address: String,
    /// The name that it has to prove over TLS; plain text without one.
    secure: Option<String>,
}

/// A stream that is attached, with what is at its other end.
pub(super) struct Connection {
    pub(super) card: Arc<ModelCard>,
    pub(super) attachment: Arc<Attachment>,
    pub(super) answers: Streaming<AnswerFrame>,
}

/// Why there is no stream. The sentences are for people, so they hold what the causes say.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("unreachable at {address}: {cause}")]
    Unreachable { address: String, cause: String },
    #[error("it did not answer the handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimeout,
    #[error("it failed the handshake: {0}")]
    Handshake(String),
    #[error("it is no chorus worker: what listens there does not know the service")]
    NoWorker,
    #[error("{0}")]
    Disagreement(Disagreement),
}

/// How a worker at `address` is connected to. Over TLS it proves to be `server_name`, or the host of its address.
pub(super) fn route(
    address: &str,
    server_name: Option<&str>,
    connect_timeout: Duration,
) -> Result<Route, InvalidAddress> {
    let given = Endpoint::from_shared(address.to_owned())
        .map_err(|source| InvalidAddress { address: address.to_owned(), source: Some(source) })?;
    let uri = given.uri();
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(InvalidAddress::new(address));
    };
    let secure = (scheme == "https").then(|| server_name.unwrap_or(host).to_owned());
    let endpoint = endpoint_at(uri.clone())
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_HTTP2_FRAME);
    Ok(Route { endpoint, address: uri.to_string(), secure })
}

/// Connects and attaches, or says why that was not possible.
pub(super) async fn connect(
    network: &dyn Network,
    route: &Route,
    delegate: &Delegate,
    traffic: &Arc<Traffic>,
) -> Result<Connection, ConnectError> {
    let (mut client, card) = in_time(describe(network, route)).await?;
    // No time of this handshake's: the members before this one have limits of their own.
    delegate.turn().await;
    in_time(attach(&mut client, card, delegate, traffic)).await
}

async fn in_time<T>(part: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, part).await.unwrap_or(Err(ConnectError::HandshakeTimeout))
}

async fn describe(
    network: &dyn Network,
    route: &Route,
) -> Result<(WorkerClient<Wire>, ModelCard), ConnectError> {
    let channel = network.connect(route.endpoint.clone(), route.secure.clone()).await;
    let channel = channel.map_err(|error| ConnectError::Unreachable {
        address: route.address.clone(),
        cause: innermost(&*error),
    })?;
    let mut client = WorkerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let card =
        client.describe(DescribeRequest {}).await.map_err(|status| refused(&status, route))?.into_inner();
    Ok((client, bounded(card)))
}

async fn attach(
    client: &mut WorkerClient<Wire>,
    card: ModelCard,
    delegate: &Delegate,
    traffic: &Arc<Traffic>,
) -> Result<Connection, ConnectError> {
    agree(client, &card, delegate).await?;
    let (attachment, frames) = Attachment::new(card.vocabulary_size, Arc::clone(traffic));
    let answers = client.attach(frames).await.map_err(|status| handshake(&status))?.into_inner();
    Ok(Connection { card: Arc::new(card), attachment: Arc::new(attachment), answers })
}

/// The tokenizer travels only where it may become the ensemble's.
async fn agree(
    client: &mut WorkerClient<Wire>,
    card: &ModelCard,
    delegate: &Delegate,
) -> Result<(), ConnectError> {
    if delegate.enter(card).map_err(ConnectError::Disagreement)? {
        return Ok(());
    }
    let json = fetch_tokenizer(client).await.map_err(|status| handshake(&status))?;
    delegate.define(json, card).await.map_err(ConnectError::Disagreement)
}

async fn fetch_tokenizer(client: &mut WorkerClient<Wire>) -> Result<Vec<u8>, Status> {
    let mut chunks = client.tokenizer(TokenizerRequest {}).await?.into_inner();
    let mut json = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        if json.len() + chunk.data.len() > MAX_TOKENIZER_BYTES {
            return Err(Status::out_of_range(format!(
                "its tokenizer has more than {MAX_TOKENIZER_BYTES} bytes"
            )));
        }
        json.extend_from_slice(&chunk.data);
    }
    Ok(json)
}

/// What came instead of the first answer: a connection that broke at once was none, and says why.
fn refused(status: &Status, route: &Route) -> ConnectError {
    match status.source() {
        Some(_) => ConnectError::Unreachable { address: route.address.clone(), cause: innermost(status) },
        None => handshake(status),
    }
}

/// What a worker answered instead of a step of the handshake.
fn handshake(status: &Status) -> ConnectError {
    match (status.code(), status.message()) {
        (Code::Unimplemented, _) => ConnectError::NoWorker,
        (code, "") => ConnectError::Handshake(code.description().to_owned()),
        (_, message) => ConnectError::Handshake(shortened(message, LONGEST_REASON)),
    }
}

/// A card whose words are short enough for every status that repeats them. Fingerprints are compared: one of a model that is
/// too long for a hash is as good as none.
pub(super) fn bounded(mut card: ModelCard) -> ModelCard {
    if card.model_fingerprint.len() > LONGEST_NAME {
        card.model_fingerprint.clear();
    }
    let words = [
        &mut card.name,
        &mut card.architecture,
        &mut card.device,
        &mut card.vocabulary_fingerprint,
        &mut card.incarnation,
        &mut card.version,
        &mut card.model_fingerprint,
    ];
    words.into_iter().for_each(|word| *word = shortened(word, LONGEST_NAME));
    card
}

/// The transport's own sentence is "transport error": what happened stands at the end of the chain.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (**error).source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}
