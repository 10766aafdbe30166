//! Connections as the servers take them: [`connections`] closes those whose peer never begins to speak, and leaves none
//! before its peer has had time to hear everything.
//!
//! Knows nothing about what is served or said.

mod connection;
mod farewell;
mod greeting;

use std::io;

use futures::{Stream, StreamExt as _};

pub use connection::Connection;

/// Connections that fail where their peers don't begin an HTTP/2 session within ten seconds, and that end so that what was
/// written last arrives, whatever the peers are writing meanwhile.
pub fn connections<I>(
    incoming: impl Stream<Item = io::Result<I>>,
) -> impl Stream<Item = io::Result<Connection<I>>> {
    incoming.map(|connection| Ok(Connection::new(connection?)))
}
