//! The simulated network as coordinators, workers and clients see it. Knows nothing about what is said.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    task::{Context, Poll},
};

use chorus_coordinator::network::{Network, NoConnection};
use chorus_net::Wire;
use futures::{FutureExt as _, Stream, future::BoxFuture, stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{
    Channel, Endpoint, Error, Uri,
    server::{Connected, TcpConnectInfo},
};
use turmoil::net::{TcpListener, TcpStream};

/// Connections by the names of hosts.
pub(crate) struct Simulated;

impl Network for Simulated {
    /// Nobody listens in.
    fn connect(
        &self,
        endpoint: Endpoint,
        _secure: Option<String>,
    ) -> BoxFuture<'static, Result<Wire, NoConnection>> {
        connect(endpoint).map(|connected| Ok(connected?.into())).boxed()
    }

    fn look_up(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<String>>> {
        let address = turmoil::lookup(host);
        async move { Ok(vec![format!("http://{address}:{port}")]) }.boxed()
    }
}

pub(crate) async fn connect(endpoint: Endpoint) -> Result<Channel, Error> {
    let connector = tower::service_fn(|uri: Uri| async move {
        let host = uri.host().unwrap_or_default().to_owned();
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(0))).await?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    endpoint.connect_with_connector(connector).await
}

/// The connections that come in at a port of this host.
pub(crate) async fn listen(port: u16) -> io::Result<impl Stream<Item = io::Result<Accepted>> + Send> {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port)).await?;
    Ok(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    }))
}

/// A connection that came in.
pub(crate) struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.0.local_addr().ok(), remote_addr: self.0.peer_addr().ok() }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
