//! [`Network`]: how workers are reached. Sockets, or what a simulation puts in their place.
//!
//! Knows nothing about what is said over a connection.

use std::io;

use futures::future::{BoxFuture, FutureExt};
use tonic::transport::{Channel, Endpoint, Error};

/// A way to names and connections.
pub trait Network: Send + Sync + 'static {
    /// Connects to an endpoint, within the endpoint's own time.
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>>;

    /// Everything that a name stands for, as `http://host:port`.
    fn look_up(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<String>>>;
}

/// The system's own sockets and resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets;

impl Network for Sockets {
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>> {
        async move { endpoint.connect().await }.boxed()
    }

    fn look_up(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<String>>> {
        async move {
            let found = tokio::net::lookup_host((host, port)).await?;
            Ok(found.map(|address| format!("http://{address}")).collect())
        }
        .boxed()
    }
}
