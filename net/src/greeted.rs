//! [`Greeted`]: a connection that fails where its peer never begins to speak.
//!
//! Knows nothing about what is served, nor about how a connection ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// The preface of a client and the head of the first frame that follows it (RFC 9113, sections 3.4 and 4.1).
const GREETING: usize = 24 + 9;

/// What a connection has to begin in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, and how much is missing from its peer's greeting. It fails once it was open for ten seconds without having
/// brought the beginning of an HTTP/2 session.
///
/// A server's pings begin after that beginning, so they can't tell that a peer is gone which never came so far: its last packet
/// was lost, or it wants to hold the connection and nothing else.
#[derive(Debug)]
pub struct Greeted<I> {
    connection: I,
    missing: usize,
    /// Until the greeting is there.
    too_late: Option<Pin<Box<Sleep>>>,
}

impl<I> Greeted<I> {
    pub(crate) fn new(connection: I) -> Self {
        Self { connection, missing: GREETING, too_late: Some(Box::pin(sleep(PATIENCE))) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Greeted<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { connection, missing, too_late } = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(connection).poll_read(context, buffer);
        let Some(sleep) = too_late else {
            return read;
        };
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            *too_late = None;
        } else if read.is_pending() {
            ready!(sleep.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing")));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Greeted<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

impl<I: Connected> Connected for Greeted<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_greet_is_not_waited_for() {
        for said in [0, 1, GREETING - 1] {
            let (near, mut far) = duplex(100);
            let mut near = Greeted::new(near);
            far.write_all(&vec![7; said]).await.unwrap();
            let start = tokio::time::Instant::now();
            let mut heard = Vec::new();
            let error = near.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), heard.len()), (io::ErrorKind::TimedOut, said));
            assert_eq!(start.elapsed(), PATIENCE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_greeted_may_be_silent_for_ever() {
        let (near, mut far) = duplex(100);
        let mut near = Greeted::new(near);
        far.write_all(&[7; GREETING]).await.unwrap();
        let mut greeting = [0; GREETING];
        near.read_exact(&mut greeting).await.unwrap();
        tokio::spawn(async move {
            sleep(1000 * PATIENCE).await;
            far.write_all(b"well").await.unwrap();
        });
        let mut word = [0; 4];
        near.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_hangs_up_has_hung_up() {
        let (near, far) = duplex(100);
        drop(far);
        let mut near = Greeted::new(near);
        assert_eq!(near.read(&mut [0; 4]).await.unwrap(), 0);
    }
}
