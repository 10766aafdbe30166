//! A worker process's whole life: load, serve, drain. The listener and the shutdown signal are passed in.

use std::{future::Future, io, sync::atomic::AtomicU64, time::Duration};

use bytes::Bytes;
use chorus_net::{connections, transports};
use chorus_proto::{
    MAX_MESSAGE_BYTES, MAX_OPERATION_FRAME_BYTES,
    v1::{ModelCard, worker_server::WorkerServer},
};
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tonic::{
    server::NamedService,
    transport::{
        Server,
        server::{Connected, Router, TcpIncoming},
    },
};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use crate::{
    condition::{Board, Condition},
    config::WorkerConfig,
    engine::Engine,
    error::WorkerError,
    hosted::{LoadedWorker, load},
    hosted_model::HostedModel,
    model_thread::ModelThread,
    operation::OperationLimits,
    predictor::Predictor,
    service::WorkerService,
    stream::Stopping,
    telemetry::{self, StreamMetrics},
    watchdog,
};

/// HTTP/2 windows: requests carry tokens only, so a stream needs little; many streams share a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 24;
/// Calls at a time on one connection: a coordinator's stream, its handshakes, and those who look at the health.
const MAX_CALLS: u32 = 256;
/// A coordinator's machine that vanishes without a word is noticed after two of these, and its sessions end.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What has a health: the whole server, and the one service.
const HEALTH_SERVICES: [&str; 2] = ["", <WorkerServer<WorkerService> as NamedService>::NAME];

/// [`load`]s and [`serve`]s.
///
/// # Errors
/// As [`load`] and [`serve`].
pub async fn run(
    config: WorkerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let loaded = tokio::task::spawn_blocking(move || load(config));
    let loaded = loaded.await.map_err(|_| WorkerError::ModelThreadDied)??;
    serve(loaded, listener, shutdown).await
}

/// Serves `chorus.v1.Worker` and `grpc.health.v1.Health` on `listener` until `shutdown` resolves, then drains: takes
/// nothing new, answers what was asked (for at most [`WorkerConfig::drain_timeout`]), ends the model's thread.
///
/// # Errors
/// The server or the model's thread failed.
pub async fn serve(
    loaded: LoadedWorker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let spare = loaded.config.spare_threads;
    serve_model(loaded, incoming, shutdown, move |engine, board| on_a_thread(engine, board, spare)).await
}

/// As [`serve`], over connections of the caller's, and with everything on the runtime's own threads: where there is one, and
/// its clock is turned, all that happens happens in one order.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on<I>(
    loaded: LoadedWorker,
    incoming: impl Stream<Item = io::Result<I>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    serve_model(loaded, incoming, shutdown, |engine, board| Ok(ModelThread::spawn_task(engine, board))).await
}

fn on_a_thread<P>(engine: Engine<P>, board: Board, spare: usize) -> Result<ModelThread, WorkerError>
where
    P: Predictor + Send + 'static,
    P::State: Send,
{
    ModelThread::spawn(engine, board, spare).map_err(WorkerError::Spawn)
}

async fn serve_model<I>(
    loaded: LoadedWorker,
    incoming: impl Stream<Item = io::Result<I>>,
    shutdown: impl Future<Output = ()>,
    start: impl FnOnce(Engine<HostedModel>, Board) -> Result<ModelThread, WorkerError>,
) -> Result<(), WorkerError>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let card = loaded.card().clone();
    telemetry::device_memory(&loaded.device_memory());
    let LoadedWorker { predictor, golden, tokenizer, limits, config, tls, .. } = loaded;
    let fingerprint = card.model_fingerprint.clone();
    let engine =
        Engine::new(predictor, fingerprint, config.max_sessions as usize, config.session_ttl, config.batch);
    let interval = (!config.probe_interval.is_zero()).then_some(config.probe_interval);
    let engine = engine.probed(golden, interval, Instant::now());
    let described = Described { card, tokenizer, limits };
    let incoming = transports(incoming, tls);
    // Large, and moved about by whoever waits for it.
    Box::pin(serve_engine(engine, described, &config, incoming, shutdown, start)).await
}

/// What a worker says of the engine that it serves.
#[derive(Debug)]
struct Described {
    card: ModelCard,
    tokenizer: Bytes,
    limits: OperationLimits,
}

async fn serve_engine<P, I>(
    engine: Engine<P>,
    described: Described,
    config: &WorkerConfig,
    incoming: impl Stream<Item = io::Result<I>>,
    shutdown: impl Future<Output = ()>,
    start: impl FnOnce(Engine<P>, Board) -> Result<ModelThread, WorkerError>,
) -> Result<(), WorkerError>
where
    P: Predictor,
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let board = Board::default();
    let open_sessions = engine.open_sessions();
    let mut model = start(engine, board.clone())?;
    let (stopping, readers) = (Stopping::default(), TaskTracker::new());
    let Described { card, tokenizer, limits } = described;
    telemetry::describe(&card, config.max_sessions);
    let service = WorkerService {
        card,
        open_sessions,
        tokenizer,
        limits,
        commands: model.commands(),
        stopping: stopping.clone(),
        board: board.clone(),
        readers: readers.clone(),
        next_stream: AtomicU64::new(1),
        metrics: StreamMetrics::new(),
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkerServer<WorkerService>>().await;
    let incoming = connections(incoming);
    let server = router(service, health_service)
        .serve_with_incoming_shutdown(incoming, stopping.drain.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);

    let commands = model.commands();
    let mut result = tokio::select! {
        biased;
        served = &mut server => served.map_err(WorkerError::Serve),
        () = model.ended() => Err(WorkerError::ModelThreadDied),
        () = shutdown => Ok(()),
        // These two never end; once the worker stops, its device does not matter any more.
        () = watchdog::watch(commands, board.clone(), config.stuck_after) => Ok(()),
        () = report(&board, &health) => Ok(()),
    };
    tracing::info!("stopping");
    set_status(&health, ServingStatus::NotServing).await;
    readers.close();
    stopping.drain.cancel();
    if result.is_ok() {
        result = drain(server, &readers, health, config.drain_timeout).await;
    }
    stopping.abort.cancel();
    // No forward that ends takes longer.
    model.stop(config.stuck_after).await;
    result
}

fn router(service: WorkerService, health: HealthServer<impl Health>) -> Router {
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MAX_OPERATION_FRAME_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_CALLS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(health)
        .add_service(service)
}

/// Connections and streams end by themselves once they have their answers; who does not read is not waited for.
async fn drain(
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
    readers: &TaskTracker,
    health: HealthReporter,
    limit: Duration,
) -> Result<(), WorkerError> {
    let mut server = std::pin::pin!(server);
    let streams = async {
        readers.wait().await;
        end_watches(health).await;
    };
    let mut time_is_up = std::pin::pin!(tokio::time::sleep(limit));
    tokio::select! {
        biased;
        served = &mut server => return served.map_err(WorkerError::Serve),
        () = streams => {}
        () = &mut time_is_up => {
            tracing::warn!(?limit, "stopped without having all answers taken");
            return Ok(());
        }
    }
    // Every answer is handed to its connection, which may still have to write it. One that says nothing stays open.
    tokio::select! {
        biased;
        served = server => served.map_err(WorkerError::Serve),
        () = time_is_up => {
            tracing::info!(?limit, "stopped with connections that their peers did not close");
            Ok(())
        }
    }
}

/// Serving is who has a sound device. Never resolves.
async fn report(board: &Board, health: &HealthReporter) {
    let set_sound = telemetry::device_is_sound();
    set_sound(board.reason().is_none());
    let mut news = board.news();
    loop {
        let status = match news.next().await {
            Condition::Sound => ServingStatus::Serving,
            Condition::Unsound { .. } => ServingStatus::NotServing,
        };
        set_sound(status == ServingStatus::Serving);
        set_status(health, status).await;
    }
}

async fn set_status(health: &HealthReporter, status: ServingStatus) {
    for service in HEALTH_SERVICES {
        health.set_service_status(service, status).await;
    }
}

/// Whoever watches the health would keep its connection open for ever.
async fn end_watches(mut health: HealthReporter) {
    for service in HEALTH_SERVICES {
        health.clear_service_status(service).await;
    }
}

#[cfg(test)]
mod tests;
