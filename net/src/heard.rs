//! [`Heard`]: a client's side of a connection, which says what is wrong where the other side does not speak as it should.
//!
//! Knows nothing about what is said when all is well.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::sentence_of_client;
use crate::wire::LastWords;

/// What a TLS record begins with: an alert, or a handshake (RFC 8446, section 5.1). The first frame of an HTTP/2 server begins with
/// its length, which is far less than these in its highest byte (RFC 9113, section 4.1).
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// A connection whose errors are sentences.
pub(crate) struct Heard {
    io: Io,
    /// Whether anything has come.
    anything: bool,
    words: LastWords,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Heard {
    pub(crate) fn plain(socket: TcpStream, words: LastWords) -> Self {
        Self { io: Io::Plain(socket), anything: false, words }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, words: LastWords) -> Self {
        Self { io: Io::Tls(Box::new(stream)), anything: false, words }
    }

    /// What ends it, in words if there are any for it.
    fn last(&self, error: io::Error) -> io::Error {
        let error = explained(error, "without a word");
        // What the system says needs no other words than its own.
        if error.raw_os_error().is_none() {
            self.words.set(Some(error.to_string()));
        }
        error
    }

    /// Looks at what has come first.
    fn first(&mut self, heard: &[u8]) -> io::Result<()> {
        let Some(first) = heard.first().filter(|_| !self.anything) else {
            return Ok(());
        };
        self.anything = true;
        match &self.io {
            Io::Plain(_) if TLS_RECORDS.contains(first) => {
                Err(io::Error::other("the server speaks TLS: this is plain text"))
            }
            Io::Plain(_) | Io::Tls(_) => Ok(()),
        }
    }
}

/// What TLS says, in words; whatever else went wrong as it is.
pub(crate) fn explained(error: io::Error, where_it_ended: &str) -> io::Error {
    match sentence_of_client(&error) {
        Some(sentence) => io::Error::new(error.kind(), sentence),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), format!("the server closed the connection {where_it_ended}"))
        }
        None => error,
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.io {
            Io::Plain(io) => ready!(Pin::new(io).poll_read(context, buffer)),
            Io::Tls(io) => ready!(Pin::new(&mut **io).poll_read(context, buffer)),
        };
        let heard = read.and_then(|()| this.first(buffer.filled().get(before..).unwrap_or_default()));
        Poll::Ready(heard.map_err(|error| this.last(error)))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Io::Tls(io) => Pin::new(&mut **io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(context, bytes),
            Io::Tls(io) => Pin::new(&mut **io).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(context),
            Io::Tls(io) => Pin::new(&mut **io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(context),
            Io::Tls(io) => Pin::new(&mut **io).poll_shutdown(context),
        }
    }
}
