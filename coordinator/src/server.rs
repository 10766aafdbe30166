//! [`Coordinator`]: its whole life, from members over services to the drain.
//!
//! The listener and the shutdown are passed in, so tests use port 0 and stop at once. Knows nothing about flags, files or
//! signals.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chorus_inference::{InferenceServer, InferenceService, with_read_timeout};
use chorus_net::{ServerTls, secured_connections};
use chorus_proto::FILE_DESCRIPTOR_SET;
use chorus_proto::v1::ensemble_server::{self, EnsembleServer};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::CompressionEncoding;
use tonic::service::LayerExt as _;
use tonic::transport::server::{Connected, TcpIncoming};
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::config::{Config, Connections, Limits};
use crate::ensemble::{Common, Ensemble};
use crate::membership::Connecting;
use crate::network::{Network, Sockets};
use crate::run_error::RunError;
use crate::security::{Scope, Security};
use crate::service::{EnsembleService, GuardedService, explain};
use crate::steward::{Handle, Source, Steward};
use crate::telemetry::{ObserveLayer, counted};
use crate::{admin, health};

/// What running requests have to finish in after a shutdown was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What connections have to take their last messages in.
const GOODBYE: Duration = Duration::from_secs(1);
/// Room in a request for everything that is not its input.
const REQUEST_FRAMING: usize = 1 << 20;
/// Streams of one connection beside those that can be in progress or wait: health, reflection, and requests that are refused.
const SPARE_STREAMS: u32 = 64;

/// An ensemble that connects to its members, and is to be served.
pub struct Coordinator {
    steward: Steward,
    handle: Handle,
    common: Common,
    limits: Limits,
    connections: Connections,
    admin: Option<TcpListener>,
}

impl Coordinator {
    /// Connects to the members over the system's sockets. Needs a tokio runtime. `config.listen`, `config.metrics`,
    /// `config.admin` and `config.http` are not used here.
    ///
    /// # Errors
    /// A configuration that can't be used.
    pub fn new(config: Config) -> Result<Self, RunError> {
        let security = Security::new(&config)?;
        let sockets = Sockets { tls: security.workers.clone() };
        Self::with_security(Arc::new(sockets), config, security)
    }

    /// The same over a network of the caller's: where workers are found.
    ///
    /// # Errors
    /// As [`Coordinator::new`].
    pub fn on(network: Arc<dyn Network>, config: Config) -> Result<Self, RunError> {
        let security = Security::new(&config)?;
        Self::with_security(network, config, security)
    }

    fn with_security(
        network: Arc<dyn Network>,
        config: Config,
        security: Security,
    ) -> Result<Self, RunError> {
        let (limits, connections) = (config.limits.clone(), config.connections.clone());
        let common = Common::new(&limits, &config.prefix_cache, security);
        let connecting = Connecting::new(&config, network, &common);
        let (steward, handle) = Steward::new(config, connecting, common.clone())?;
        Ok(Self { steward, handle, common, limits, connections, admin: None })
    }

    /// Where [`Handle::reload`] has the configuration from.
    #[must_use]
    pub fn with_source(mut self, source: Source) -> Self {
        self.steward.read_again_from(source);
        self
    }

    /// Serves `chorus.v1.Admin` too, here and nowhere else.
    #[must_use]
    pub fn with_admin(mut self, listener: TcpListener) -> Self {
        self.admin = Some(listener);
        self
    }

    /// To change the configuration while it serves.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What is served, for whoever serves it in another form in the same process. It answers while this one is served, and
    /// wants the same tokens, as the metadata `authorization`.
    pub fn ensemble(&self) -> impl ensemble_server::Ensemble + Clone + use<> {
        let Common { requests, security, .. } = &self.common;
        let service = EnsembleService::new(self.handle.ensembles());
        GuardedService::new(service, security.gate(Scope::Read), Arc::clone(requests))
    }

    /// The TLS of its ports, for whoever serves the ensemble in another form beside them; plain text without it. What a change of
    /// the configuration replaces is replaced there, too.
    pub fn tls(&self) -> Option<ServerTls> {
        self.common.security.server.clone()
    }

    /// Serves clients' connections until `shutdown` resolves and the drain is over. Members are connected to in the
    /// background: the server answers UNAVAILABLE, naming them, until enough of them are up.
    ///
    /// On shutdown it accepts nothing more, lets running requests finish for up to ten seconds, then ends them, and closes
    /// the sessions and streams at the members.
    ///
    /// # Errors
    /// A listener that fails.
    pub async fn serve<I>(
        self,
        incoming: impl Stream<Item = io::Result<I>> + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError>
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let Self { steward, handle, common, limits, connections, admin } = self;
        let draining = common.draining.clone();
        let steward = AbortOnDropHandle::new(tokio::spawn(steward.run()));
        let _admin = admin.map(|listener| {
            let (security, draining) = (common.security.clone(), draining.clone());
            let serving = serve_admin(handle.clone(), listener, security, connections.clone(), draining);
            AbortOnDropHandle::new(tokio::spawn(serving))
        });
        let served = serve(handle.ensembles(), &common, &limits, &connections, incoming, shutdown).await;
        draining.cancel();
        match steward.await {
            Ok(steward) => steward.disconnect().await,
            Err(error) => tracing::error!(%error, "the steward failed"),
        }
        served
    }
}

/// Serves an ensemble on `listener` until `shutdown` resolves and the drain is over, as [`Coordinator::serve`] does.
///
/// # Errors
/// A configuration that can't be used, or a listener that fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Coordinator::new(config)?.serve(incoming, shutdown).await
}

/// As [`run`], over a network of the caller's: where workers are found, and how clients' connections come in.
///
/// # Errors
/// As [`run`].
pub async fn run_on<I>(
    network: Arc<dyn Network>,
    config: Config,
    incoming: impl Stream<Item = io::Result<I>> + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    Coordinator::on(network, config)?.serve(incoming, shutdown).await
}

async fn serve_admin(
    handle: Handle,
    listener: TcpListener,
    security: Security,
    connections: Connections,
    draining: CancellationToken,
) {
    // Clients are served all the same.
    let served = admin::serve(handle, listener, &security, &connections, draining.cancelled()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin service failed");
    }
}

/// Serves until the shutdown and the drain are over.
async fn serve<I>(
    ensembles: watch::Receiver<Arc<Ensemble>>,
    common: &Common,
    limits: &Limits,
    connections: &Connections,
    incoming: impl Stream<Item = io::Result<I>> + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = health::reporter().await;
    let _reporting = AbortOnDropHandle::new(tokio::spawn(health::report(ensembles.clone(), reporter)));
    let largest = largest_request(limits);
    let ensemble = EnsembleService::new(ensembles);
    let inference = InferenceServer::new(InferenceService::new(ensemble.clone()));
    let inference = inference.max_decoding_message_size(largest);
    let inference =
        inference.accept_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Zstd);
    let inference = match connections.compression.encoding() {
        Some(encoding) => inference.send_compressed(encoding),
        None => inference,
    };
    let read_timeout = limits.read_timeout();
    let inference =
        MapRequestLayer::new(move |request| with_read_timeout(request, read_timeout)).named_layer(inference);
    let service = EnsembleServer::new(ensemble);
    let service = service.max_decoding_message_size(largest);
    let service =
        service.accept_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Zstd);
    let service = match connections.compression.encoding() {
        Some(encoding) => service.send_compressed(encoding),
        None => service,
    };
    // Not of the others, whose streams may well be silent for long.
    let service = RequestBodyTimeoutLayer::new(limits.read_timeout()).named_layer(service);
    let router = tonic::transport::Server::builder()
        // Outside of what explains refusals, so that it counts what callers see.
        .layer(ObserveLayer::new(Arc::clone(&common.requests)))
        .layer(MapResponseLayer::new(move |response| explain(response, largest)))
        .layer(common.security.gate(Scope::Read))
        .max_concurrent_streams(most_streams(limits))
        .http2_keepalive_interval(Some(connections.keepalive()))
        .http2_keepalive_timeout(Some(connections.keepalive_timeout()))
        .add_service(service)
        .add_service(inference)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let closing = CancellationToken::new();
    let incoming = counted(secured_connections(incoming, common.security.server.clone()));
    let server = router.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        biased;
        served = &mut server => return Ok(served?),
        () = shutdown => {}
    }
    tracing::info!("shutting down: running requests may finish");
    common.draining.cancel();
    closing.cancel();
    tokio::select! {
        biased;
        served = &mut server => return Ok(served?),
        () = common.admission.idle() => {}
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            tracing::warn!(requests = common.admission.in_progress(), "ending requests that did not finish in time");
        }
    }
    common.stop.cancel();
    // Streams that never end by themselves (health watches, reflection) end with the process.
    match tokio::time::timeout(GOODBYE, server).await {
        Ok(served) => Ok(served?),
        Err(_) => Ok(()),
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(chorus_inference::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The descriptors know the workers' service too, which is not served here.
        .with_service_name(ensemble_server::SERVICE_NAME)
        .with_service_name(chorus_inference::SERVICE_NAME)
        .with_service_name("grpc.health.v1.Health")
}

/// As many as one caller may have in progress and in the line together: beyond that its own library would make it wait, where
/// nobody could tell it for how long.
fn most_streams(limits: &Limits) -> u32 {
    limits.max_sessions.saturating_add(limits.max_waiting).saturating_add(SPARE_STREAMS)
}

/// A request that is somewhat over the limits still gets the sentence that says so; one that is far over is not read.
fn largest_request(limits: &Limits) -> usize {
    // A token id is a varint of up to ten bytes. An input is a text or ids, never both.
    let input = (limits.max_input_bytes as usize).max(10 * limits.max_input_tokens as usize);
    input + REQUEST_FRAMING
}

#[cfg(test)]
mod tests;
