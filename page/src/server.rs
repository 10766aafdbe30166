//! [`Page`]: connections in, until a shutdown. Knows nothing about what is asked or shown.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use chorus_proto::v1::ensemble_server::Ensemble;
use futures::{Stream, StreamExt as _};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::server::Connected;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::api::{self, Api};
use crate::failure::Failure;
use crate::files;
use crate::json::{Json, NoDescriptor};
use crate::manners::{self, Manners};

/// Connections at a time; a browser has a handful. More wait to be taken.
const MOST_CONNECTIONS: usize = 256;
/// Where connections can't be taken, as when files run out, trying at once would do nothing else.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);
/// For the headers of a request, and between two pieces of its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The page and what it asks, over an ensemble.
#[derive(Debug, Clone)]
pub struct Page {
    router: Router,
}

impl Page {
    /// A page about `ensemble`. `hosts` are the names by which browsers may ask for it, beside `localhost` and addresses; nothing where it
    /// is served over TLS, whose certificates have the names.
    ///
    /// # Errors
    /// Descriptors of `chorus.v1` that can't be used: a defect of the build.
    pub fn new<E: Ensemble>(ensemble: E, hosts: Option<&[String]>) -> Result<Self, NoDescriptor> {
        let api = Api { ensemble: Arc::new(ensemble), json: Json::new()? };
        let router = files::routes().fold(api::routes(), |router, (path, file)| router.route(path, file));
        let nothing = async || {
            Failure::of_http(StatusCode::NOT_FOUND, "there is nothing here; allowed: / and /api/...")
        };
        let wrong_method = async || {
            let message = "another method is needed here; allowed: GET for the page and /api/status, POST for the others";
            Failure::of_http(StatusCode::METHOD_NOT_ALLOWED, message).into_response()
        };
        let router = router
            .fallback(nothing)
            .method_not_allowed_fallback(wrong_method)
            .layer(axum::middleware::from_fn_with_state(
                Manners { hosts: hosts.map(Arc::from) },
                manners::keep,
            ))
            .with_state(api);
        Ok(Self { router })
    }

    /// Serves connections until `shutdown` resolves, and then until what was begun is over. Dropped, it ends at once.
    pub async fn serve<I>(
        self,
        incoming: impl Stream<Item = io::Result<I>> + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        let mut incoming = Box::pin(incoming);
        loop {
            let accepted = async {
                // Never closed.
                let place = Arc::clone(&room).acquire_owned().await.ok();
                (place, incoming.next().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Some(Ok(io)) => {
                    let connection = graceful.watch(self.connection(io));
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a browser's connection failed");
                        }
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a browser's connection could not be taken");
                    tokio::time::sleep(AFTER_A_FAILURE).await;
                }
                None => break,
            }
        }
        drop(incoming);
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    }

    fn connection<I>(&self, io: I) -> impl GracefulConnection<Error = hyper::Error> + Send + use<I>
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let peer = io.connect_info();
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                request
            })
            .layer(RequestBodyTimeoutLayer::new(READ_TIMEOUT))
            .service(
                self.router.clone().map_request(|request: Request<_>| request.map(axum::body::Body::new)),
            );
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_TIMEOUT)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(service))
    }
}
