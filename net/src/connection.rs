//! [`Connection`]: reads and writes go through, but for its beginning and its end.
//!
//! Knows nothing about what is served or said.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::farewell::Farewell;
use crate::greeting::Greeting;

/// A connection as a server takes it: it fails where its peer never begins to speak, and its shutdown waits, though not for
/// long, until its peer has nothing more to say.
#[derive(Debug)]
pub struct Connection<I> {
    io: I,
    greeting: Greeting,
    farewell: Farewell,
}

impl<I> Connection<I> {
    pub(crate) fn new(io: I) -> Self {
        Self { io, greeting: Greeting::new(), farewell: Farewell::default() }
    }
}

/// Nothing is waited for where the peer has not begun in time. A server speaks first, and what it writes may wait for the peer, too:
/// in a TLS handshake.
fn or_late<T>(
    done: Poll<io::Result<T>>,
    greeting: &mut Greeting,
    context: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if done.is_pending() {
        ready!(greeting.poll_late(context));
        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing")));
    }
    done
}

impl<I: AsyncRead + Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, greeting, .. } = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(io).poll_read(context, buffer);
        greeting.heard(buffer.filled().len() - before);
        or_late(read, greeting, context)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, greeting, .. } = self.get_mut();
        or_late(Pin::new(io).poll_write(context, bytes), greeting, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, greeting, .. } = self.get_mut();
        or_late(Pin::new(io).poll_write_vectored(context, bytes), greeting, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, greeting, .. } = self.get_mut();
        or_late(Pin::new(io).poll_flush(context), greeting, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, farewell, .. } = self.get_mut();
        farewell.poll(io, context)
    }
}

impl<I: Connected> Connected for Connection<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, join, repeat, sink};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{spawn, yield_now};
    use tokio::time::{Instant, advance, sleep};

    use super::*;
    use crate::{farewell, greeting};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_greet_is_not_waited_for() {
        for said in [0, 1, greeting::LENGTH - 1] {
            let (near, mut far) = duplex(100);
            let mut near = Connection::new(near);
            far.write_all(&vec![7; said]).await.unwrap();
            let start = Instant::now();
            let mut heard = Vec::new();
            let error = near.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), heard.len()), (io::ErrorKind::TimedOut, said));
            assert_eq!(start.elapsed(), greeting::PATIENCE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_greeted_may_be_silent_for_ever() {
        let (near, mut far) = duplex(100);
        let mut near = Connection::new(near);
        far.write_all(&[7; greeting::LENGTH]).await.unwrap();
        let mut greeting = [0; greeting::LENGTH];
        near.read_exact(&mut greeting).await.unwrap();
        spawn(async move {
            sleep(1000 * greeting::PATIENCE).await;
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
        let mut near = Connection::new(near);
        assert_eq!(near.read(&mut [0; 4]).await.unwrap(), 0);
    }

    /// On real sockets: where what is closed unread is reset, the peer's second write would fail.
    #[tokio::test]
    async fn a_peer_that_writes_on_reads_the_last_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Connection::new(listener.accept().await.unwrap().0);
        far.write_all(b"not read before the end").await.unwrap();
        let ending = spawn(async move {
            near.write_all(b"the last word").await.unwrap();
            near.shutdown().await.unwrap();
        });
        let mut heard = [0; 13];
        // It has come, and is not read yet.
        far.peek(&mut heard).await.unwrap();
        for _ in 0..100 {
            far.write_all(&[7; 10_000]).await.unwrap();
            yield_now().await;
        }
        assert!(!ending.is_finished());
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"the last word");
        assert_eq!(far.read(&mut heard).await.unwrap(), 0);
        drop(far);
        ending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_neither_says_anything_nor_closes_is_left() {
        let (near, far) = duplex(100);
        let start = Instant::now();
        Connection::new(near).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), farewell::PATIENCE);
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_stops_talking_is_left() {
        let mut near = Connection::new(join(repeat(7), sink()));
        let ending = spawn(async move { near.shutdown().await });
        let others_have_a_turn = async {
            for _ in 0..100 {
                yield_now().await;
            }
        };
        others_have_a_turn.await;
        assert!(!ending.is_finished());
        advance(farewell::PATIENCE).await;
        ending.await.unwrap().unwrap();
    }
}
