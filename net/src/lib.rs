//! Connections as the servers take them: [`connections`] closes those whose peer never begins to speak, and leaves none
//! before its peer has had time to hear everything. In plain text or in TLS ([`secured_connections`]), and as clients make them
//! ([`Dialer`]).
//!
//! Knows nothing about what is served or said.

mod connection;
mod dial;
mod farewell;
mod greeting;
mod heard;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod wire;

use std::io;

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::server::Connected;

pub use connection::Connection;
pub use dial::{Dialer, InvalidName, endpoint_at};
pub use tls::{
    ClientSettings, ClientSetup, ClientTls, Identity, ServerSettings, ServerSetup, ServerTls, TlsError,
    Transport,
};
pub use wire::Wire;

/// Connections that fail where their peers don't begin an HTTP/2 session within ten seconds, and that end so that what was
/// written last arrives, whatever the peers are writing meanwhile.
pub fn connections<I>(
    incoming: impl Stream<Item = io::Result<I>>,
) -> impl Stream<Item = io::Result<Connection<I>>> {
    incoming.map(|connection| Ok(Connection::new(connection?)))
}

/// The same, in TLS where there is some: a handshake is a part of the ten seconds, runs on its connection's own task, and where
/// it fails the peer has time to hear why.
pub fn secured_connections<I>(
    incoming: impl Stream<Item = io::Result<I>>,
    tls: Option<ServerTls>,
) -> impl Stream<Item = io::Result<Connection<Transport<I>>>>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin,
{
    connections(transports(incoming, tls))
}

/// The part of [`secured_connections`] that is TLS.
pub fn transports<I>(
    incoming: impl Stream<Item = io::Result<I>>,
    tls: Option<ServerTls>,
) -> impl Stream<Item = io::Result<Transport<I>>>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin,
{
    incoming.map(move |connection| Ok(Transport::new(connection?, tls.as_ref())))
}
