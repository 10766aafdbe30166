//! Connections as the servers take them: [`connections`] closes those whose peer never begins to speak, and leaves none
//! before its peer has heard everything.
//!
//! Knows nothing about what is served or said.

use std::io;

use futures::{Stream, StreamExt as _};

mod greeted;
mod lingering;

use greeted::Greeted;
use lingering::Lingering;

/// A connection as a server takes it.
pub type Connection<I> = Lingering<Greeted<I>>;

/// Connections that fail where their peers don't begin an HTTP/2 session within ten seconds, and that end so that what was
/// written last arrives, whatever the peers are writing meanwhile.
pub fn connections<I>(
    incoming: impl Stream<Item = io::Result<I>>,
) -> impl Stream<Item = io::Result<Connection<I>>> {
    incoming.map(|connection| Ok(Lingering::new(Greeted::new(connection?))))
}
