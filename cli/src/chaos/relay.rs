//! A relay of connections that can make everything vanish that passes it, as a network does whose cable was pulled: nobody is
//! told. Knows nothing about what passes.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// In front of one server, until it is dropped.
pub(super) struct Relay {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub(super) async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let is_cut = watch::Sender::new(false);
        let task = tokio::spawn(relay(listener, server, is_cut.subscribe()));
        Ok(Self { address, is_cut, _task: AbortOnDropHandle::new(task) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn relay(listener: TcpListener, server: SocketAddr, is_cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(connection(client, server, is_cut.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends when either side does. One that was cut while something passed never works again, as a connection does not in
/// which segments were given up.
async fn connection(client: TcpStream, server: SocketAddr, is_cut: watch::Receiver<bool>) -> io::Result<()> {
    open(is_cut.clone()).await;
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        done = pass(from_client, to_server, is_cut.clone()) => done,
        done = pass(from_server, to_client, is_cut) => done,
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // What passes now is lost, and with it everything after.
        if *is_cut.borrow() {
            std::future::pending::<()>().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
    }
}

/// Waits until nothing vanishes.
async fn open(mut is_cut: watch::Receiver<bool>) {
    let _ = is_cut.wait_for(|is_cut| !is_cut).await;
}
