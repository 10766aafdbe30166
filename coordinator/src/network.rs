//! [`Network`]: how workers are reached. Sockets, or what a simulation puts in their place.
//!
//! Knows nothing about what is said over a connection.

use std::io;

use chorus_net::{ClientTls, Dialer, Wire};
use futures::future::{BoxFuture, FutureExt};
use tonic::transport::Endpoint;

/// Why there is no connection: the innermost cause says it.
pub type NoConnection = Box<dyn std::error::Error + Send + Sync>;

/// A way to names and connections.
pub trait Network: Send + Sync + 'static {
    /// Connects to an endpoint, within the endpoint's own time; over TLS, where there is a name that the worker has to prove.
    fn connect(
        &self,
        endpoint: Endpoint,
        secure: Option<String>,
    ) -> BoxFuture<'static, Result<Wire, NoConnection>>;

    /// Everything that a name stands for, as `http://host:port`.
    fn look_up(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<String>>>;
}

/// The system's own sockets and resolver.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    /// For workers that are connected to over TLS.
    pub tls: Option<ClientTls>,
}

impl Network for Sockets {
    fn connect(
        &self,
        endpoint: Endpoint,
        secure: Option<String>,
    ) -> BoxFuture<'static, Result<Wire, NoConnection>> {
        let dialer = match (secure, &self.tls) {
            (None, _) => Ok(Dialer::plain(endpoint)),
            (Some(name), Some(tls)) => {
                Dialer::secure(endpoint, tls.clone(), &name).map_err(NoConnection::from)
            }
            // Never for a configuration that was checked.
            (Some(_), None) => Err("worker_tls is not configured".into()),
        };
        async move { Ok(dialer?.connect().await?) }.boxed()
    }

    fn look_up(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<String>>> {
        async move {
            let found = tokio::net::lookup_host((host, port)).await?;
            Ok(found.map(|address| format!("http://{address}")).collect())
        }
        .boxed()
    }
}
