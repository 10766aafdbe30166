//! Where the coordinator's page is served, and for how long. Knows nothing about what it shows.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use chorus_coordinator::Coordinator;
use chorus_net::transports;
use chorus_page::Page;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::{PAGE_LISTENING, SECURE, announce_as, listen};

/// Where people look first.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// What browsers have to take the last lines in, once nobody answers any more.
const GOODBYE: Duration = Duration::from_secs(1);

/// A page that is served, or none.
pub(super) struct Served(Option<JoinHandle<()>>);

/// Serves the page at its address, if it has one, and by these names; `anywhere` says that it may choose one then: the usual one, or any other of
/// this machine's where that is taken.
///
/// # Errors
/// The address can't be used.
pub(super) async fn serve(
    coordinator: &Coordinator,
    address: Option<SocketAddr>,
    hosts: &[String],
    anywhere: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<Served> {
    let listener = match address {
        Some(address) => listen(address).await?,
        None if anywhere => listen_anywhere().await?,
        None => return Ok(Served(None)),
    };
    // The page speaks HTTP/1.1.
    let tls = coordinator.tls().map(|tls| tls.for_http_1());
    let page = Page::new(coordinator.ensemble(), tls.is_none().then_some(hosts))?;
    announce_as(PAGE_LISTENING, if tls.is_some() { SECURE } else { "" }, &listener)?;
    // Tokens are small, and wait for nothing.
    let incoming = transports(TcpIncoming::from(listener).with_nodelay(Some(true)), tls);
    Ok(Served(Some(tokio::spawn(page.serve(incoming, shutdown.cancelled_owned())))))
}

async fn listen_anywhere() -> anyhow::Result<TcpListener> {
    match TcpListener::bind(USUAL).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            listen(SocketAddr::new(USUAL.ip(), 0)).await
        }
        listener => listener.with_context(|| format!("can't listen on {USUAL}")),
    }
}

impl Served {
    /// Waits until browsers have what was said, for a moment at most.
    pub(super) async fn end(self) {
        if let Some(serving) = self.0 {
            let abort = serving.abort_handle();
            // Late browsers and a panic that was logged are no failure of the coordinator.
            let _ended = tokio::time::timeout(GOODBYE, serving).await;
            abort.abort();
        }
    }
}
