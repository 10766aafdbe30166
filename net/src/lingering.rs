//! [`Lingering`]: a connection that is closed only after its peer has closed it, too.
//!
//! Knows nothing about what is served, nor about how a connection begins.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// How long a peer may take to find that the other side says nothing more.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection whose shutdown says that nothing more comes and then reads, for at most two seconds, what its peer still
/// writes, until that has ended, too.
///
/// Closing a socket while its peer writes resets the connection (RFC 9293, section 3.10.7.1; RFC 9112, section 9.6, on what it
/// does to HTTP). The peer's next write fails, and an HTTP/2 client that fails so drops what has arrived and is not read yet:
/// a last answer, or the sessions that a worker hands over.
#[derive(Debug)]
pub struct Lingering<I> {
    connection: I,
    /// Once it was said that nothing more comes.
    too_long: Option<Pin<Box<Sleep>>>,
}

impl<I> Lingering<I> {
    pub(crate) fn new(connection: I) -> Self {
        Self { connection, too_long: None }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, too_long } = self.get_mut();
        let too_long = match too_long {
            Some(too_long) => too_long,
            None => {
                ready!(Pin::new(&mut *connection).poll_shutdown(context))?;
                too_long.insert(Box::pin(sleep(PATIENCE)))
            }
        };
        let mut unwanted = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut unwanted);
            match Pin::new(&mut *connection).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                // Where the peer has gone some other way, it has gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return too_long.as_mut().poll(context).map(Ok),
            }
        }
    }
}

impl<I: Connected> Connected for Lingering<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Without lingering the second write fails on every system that resets what is closed unread.
    #[tokio::test]
    async fn a_peer_that_writes_on_reads_the_last_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Lingering::new(listener.accept().await.unwrap().0);
        far.write_all(b"not read before the end").await.unwrap();
        let ending = tokio::spawn(async move {
            near.write_all(b"the last word").await.unwrap();
            near.shutdown().await.unwrap();
        });
        let mut heard = [0; 13];
        // What it says has come, and that it says no more.
        far.peek(&mut heard).await.unwrap();
        for _ in 0..100 {
            far.write_all(&[7; 10_000]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(!ending.is_finished());
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"the last word");
        assert_eq!(far.read(&mut heard).await.unwrap(), 0);
        drop(far);
        ending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_closes_is_left() {
        for writes_on in [false, true] {
            let (near, mut far) = duplex(100);
            let start = tokio::time::Instant::now();
            let far = tokio::spawn(async move {
                while writes_on && far.write_all(&[7; 10]).await.is_ok() {
                    sleep(PATIENCE / 10).await;
                }
                far
            });
            Lingering::new(near).shutdown().await.unwrap();
            assert_eq!(start.elapsed(), PATIENCE);
            drop(far);
        }
    }
}
