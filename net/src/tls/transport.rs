//! [`Transport`]: a connection in plain text or in TLS, whose handshake goes on while it is read and written.
//!
//! So a handshake runs on its connection's own task: it holds up nobody, and has the time that a connection has to begin. Knows
//! nothing about how connections come in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::FallibleAccept;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::half_open::Place;
use super::sentences;
use super::server::ServerTls;
use crate::farewell::Farewell;

/// What a server reads and writes, whether or not it is encrypted on its way.
pub struct Transport<I: Connected> {
    state: State<I>,
    info: I::ConnectInfo,
}

enum State<I> {
    Plain(I),
    Shaking {
        hands: Box<FallibleAccept<I>>,
        place: Place,
    },
    Open(Box<TlsStream<I>>),
    /// The handshake failed: the peer is left so that it learns why.
    Refusing {
        io: I,
        farewell: Farewell,
        why: String,
    },
    Closed,
}

// What is known of the peer is never pinned.
impl<I: Connected + Unpin> Unpin for Transport<I> {}

impl<I: Connected + AsyncRead + AsyncWrite + Unpin> Transport<I> {
    /// A connection that has just come in.
    pub(crate) fn new(io: I, tls: Option<&ServerTls>) -> Self {
        let info = io.connect_info();
        let state = match tls {
            None => State::Plain(io),
            Some(tls) => {
                let hands = Box::new(tls.acceptor().accept(io).into_fallible());
                State::Shaking { hands, place: tls.half_open.enter() }
            }
        };
        Self { state, info }
    }

    /// Whatever there is to read and write on, as soon as there is something.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Open<'_, I>>> {
        self.poll_hands(context);
        if let State::Refusing { io, farewell, why } = &mut self.state {
            // Whether that can be said or not, there is nothing more to say.
            let _said = ready!(farewell.poll(io, context));
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, std::mem::take(why));
            self.state = State::Closed;
            return Poll::Ready(Err(error));
        }
        match &mut self.state {
            State::Plain(io) => Poll::Ready(Ok(Open::Plain(io))),
            State::Open(io) => Poll::Ready(Ok(Open::Tls(io))),
            State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            State::Shaking { .. } | State::Refusing { .. } => Poll::Pending,
        }
    }

    fn poll_hands(&mut self, context: &mut Context<'_>) {
        let State::Shaking { hands, place } = &mut self.state else {
            return;
        };
        if Pin::new(place).poll(context).is_ready() {
            tracing::debug!("a TLS handshake gave way to others that began later");
            self.state = State::Closed;
            return;
        }
        match Pin::new(&mut **hands).poll(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(stream)) => self.state = State::Open(Box::new(stream)),
            Poll::Ready(Err((error, io))) => {
                let why = sentences::of_server(&error);
                tracing::debug!(why, "a TLS handshake failed");
                self.state = State::Refusing { io, farewell: Farewell::default(), why };
            }
        }
    }
}

enum Open<'a, I> {
    Plain(&'a mut I),
    Tls(&'a mut TlsStream<I>),
}

/// The same call on either.
macro_rules! on {
    ($open:expr, $io:ident => $call:expr) => {
        match $open {
            Open::Plain($io) => {
                let $io = Pin::new($io);
                $call
            }
            Open::Tls($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl<I: Connected + AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on!(ready!(self.get_mut().poll_open(context))?, io => io.poll_read(context, buffer))
    }
}

impl<I: Connected + AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(ready!(self.get_mut().poll_open(context))?, io => io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(ready!(self.get_mut().poll_open(context))?, io => io.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Plain(io) => io.is_write_vectored(),
            _ => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(ready!(self.get_mut().poll_open(context))?, io => io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Nothing was said that could be lost.
        if matches!(this.state, State::Shaking { .. }) {
            this.state = State::Closed;
        }
        match &mut this.state {
            State::Plain(io) => Pin::new(io).poll_shutdown(context),
            State::Open(io) => Pin::new(&mut **io).poll_shutdown(context),
            State::Refusing { .. } | State::Shaking { .. } | State::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl<I: Connected> Connected for Transport<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.info.clone()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::*;
    use crate::connection::Connection;
    use crate::testing::{Authority, Validity};
    use crate::tls::{ClientSettings, ClientTls, ServerSettings};

    /// On real sockets: where what is closed unread is reset, the peer's writes would fail, and what it has not read is lost.
    #[tokio::test]
    async fn a_peer_that_writes_on_reads_the_last_word() {
        let ca = Authority::new("ours");
        let settings = ServerSettings { identity: ca.vouch(&["near.test"], Validity::Now), client_ca: None };
        let tls = ServerTls::new(settings.prepare().unwrap());
        let trust = ClientSettings { ca: Some(ca.pem()), identity: None };
        let trust = ClientTls::new(trust.prepare().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Connection::new(Transport::new(listener.accept().await.unwrap().0, Some(&tls)));
        let ending = tokio::spawn(async move {
            let mut heard = [0; 8];
            near.read_exact(&mut heard).await.unwrap();
            near.write_all(b"the last word").await.unwrap();
            near.shutdown().await.unwrap();
        });
        let name = ServerName::try_from("near.test").unwrap();
        let mut far = trust.connector().connect(name, socket).await.unwrap();
        for _ in 0..100 {
            far.write_all(&[7; 10_000]).await.unwrap();
            far.flush().await.unwrap();
        }
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"the last word");
        far.shutdown().await.unwrap();
        ending.await.unwrap();
    }
}
