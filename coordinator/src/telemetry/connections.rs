//! Clients' connections, counted as a metric. Knows nothing about what they carry.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use metrics::Unit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

const CONNECTIONS: &str = "chorus_client_connections";

/// A connection that is counted while it is there.
pub(crate) struct Counted<I> {
    io: I,
    connections: metrics::Gauge,
}

/// The same connections, counted.
pub(crate) fn counted<I>(
    incoming: impl Stream<Item = io::Result<I>> + Send,
) -> impl Stream<Item = io::Result<Counted<I>>> + Send {
    metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Connections of clients");
    let connections = metrics::gauge!(CONNECTIONS);
    incoming.map(move |accepted| {
        accepted.map(|io| {
            connections.increment(1.0);
            Counted { io, connections: connections.clone() }
        })
    })
}

impl<I> Drop for Counted<I> {
    fn drop(&mut self) {
        self.connections.decrement(1.0);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<I: Connected> Connected for Counted<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
