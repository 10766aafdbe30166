//! Commands that serve: `chorus worker` and `chorus coordinator`. Parse, build, run; what is served is the crates'.
//!
//! Knows nothing about who starts them.

mod background;
mod collector;
mod configuration;
mod coordinator;
mod metrics;
mod page;
mod process;
mod reload;
mod tls;
mod traces;
mod worker;

use std::{future::Future, net::SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::{
    client::print,
    failure::{Interrupted, OutputClosed, warn},
    shutdown::Shutdown,
};

pub(crate) use configuration::{ConfigurationArgs, config, warn_of_misspelt};
pub(crate) use coordinator::{CoordinatorArgs, run as coordinator};
pub(crate) use worker::{WorkerArgs, run as worker};

/// What stands before the address in the one line that a server command prints on stdout, once it listens.
pub(crate) const LISTENING: &str = "listening on ";

/// What stands before the address of the admin service, in a line before that one.
const ADMIN_LISTENING: &str = "admin listening on ";

/// What stands before the address of the page, in a line before that one.
pub(crate) const PAGE_LISTENING: &str = "page listening on ";

/// What stands between these and the address where the page is served over TLS.
pub(crate) const SECURE: &str = "https://";

/// Takes an address, and says so: from now on connections wait for whoever serves them.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}

/// The line that tells people, `chorus up` and tests where the server is.
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    announce_as(LISTENING, "", listener)
}

/// `scheme` stands before the address, where it says something.
fn announce_as(words: &str, scheme: &str, listener: &TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr().context("can't tell the address")?;
    tracing::info!(address = %format_args!("{scheme}{address}"), "{}", words.trim_end_matches(" on "));
    match print(&format!("{words}{scheme}{address}\n")) {
        // Nobody has to read it.
        Err(error) if error.is::<OutputClosed>() => Ok(()),
        other => other,
    }
}

/// Waits for a server that drains by itself; a second wish to stop ends the wait.
async fn until_drained<E: Into<anyhow::Error>>(
    server: impl Future<Output = Result<(), E>>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    tokio::select! {
        served = server => served.map_err(Into::into),
        () = shutdown.kill.cancelled() => {
            warn("stopped before everything was drained");
            Err(Interrupted.into())
        }
    }
}
