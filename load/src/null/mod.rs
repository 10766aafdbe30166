//! Servers that answer at once, to measure everything but them: [`NullWorkers`] stand behind a real coordinator,
//! a [`NullEnsemble`] in front of the load test itself. And a [`LyingWorker`], to measure what a lie does. All live in threads of
//! this process.

mod answers;
mod ensemble;
mod liar;
mod logits;
mod vocabulary;
mod worker;

use std::{io, net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use chorus_proto::v1::TokenizerChunk;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{net::TcpListener, runtime::Builder};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Status,
    transport::{
        Server,
        server::{Router, TcpIncoming},
    },
};

pub use ensemble::NullEnsemble;
pub use liar::{Liar, LyingWorker};
pub use vocabulary::synthetic_vocabulary;
pub use worker::NullWorkers;

const TOKENIZER_CHUNK_BYTES: usize = 256 * 1024;
/// Calls at a time on one connection: as many as anybody has.
const MOST_STREAMS: u32 = 1 << 20;
/// HTTP/2 windows that no answer waits for.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;

/// A thread that serves until it is dropped.
#[derive(Debug)]
struct ServerThread {
    _stop: DropGuard,
}

impl ServerThread {
    /// Serves every router at a port of its own on loopback, all in one thread; gives the addresses.
    fn start(name: &str, routers: Vec<Router>) -> io::Result<(Self, Vec<SocketAddr>)> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(name, routers.into_iter().map(|router| (any, router)).collect())
    }

    /// The same at these addresses.
    fn start_at(name: &str, routers: Vec<(SocketAddr, Router)>) -> io::Result<(Self, Vec<SocketAddr>)> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (listening, addresses) = mpsc::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                let result = listen(routers).await;
                let serving = result.is_ok();
                // Nobody waits for it any more: then nobody holds the guard either.
                let _received = listening.send(result);
                if serving {
                    stopped.cancelled().await;
                }
            });
            runtime.shutdown_background();
        })?;
        // A moment: nothing but ports are taken.
        let addresses = addresses.recv().map_err(io::Error::other)??;
        Ok((Self { _stop: stop.drop_guard() }, addresses))
    }
}

async fn listen(routers: Vec<(SocketAddr, Router)>) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for (address, router) in routers {
        let listener = TcpListener::bind(address).await?;
        addresses.push(listener.local_addr()?);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        // It ends with the thread's runtime.
        tokio::spawn(router.serve_with_incoming(incoming));
    }
    Ok(addresses)
}

/// A tokenizer in pieces, as it travels.
fn tokenizer_chunks(mut rest: Bytes) -> BoxStream<'static, Result<TokenizerChunk, Status>> {
    let pieces = std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(TOKENIZER_CHUNK_BYTES));
        (!piece.is_empty()).then_some(Ok(TokenizerChunk { data: piece }))
    });
    stream::iter(pieces).boxed()
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
