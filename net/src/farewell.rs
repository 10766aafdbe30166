//! [`Farewell`]: how a connection is left, so that what was written last is read.
//!
//! Knows nothing about what is served, nor about how a connection begins.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may take to find that the other side says nothing more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// So often is read at once, so that one peer does not keep a thread from others.
const READS: usize = 16;

/// Says that nothing more comes and then reads, within [`PATIENCE`], what the peer still writes until that has ended, too.
///
/// Closing a socket while its peer writes resets the connection (RFC 9293, section 3.6.1; what HTTP should do about it: RFC 9112,
/// section 9.6). The peer's next write fails, and an HTTP/2 client that fails so drops what has arrived and is not read yet:
/// a last answer, or the sessions that a worker hands over.
#[derive(Debug, Default)]
pub(crate) struct Farewell {
    /// Once it was said that nothing more comes.
    too_long: Option<Pin<Box<Sleep>>>,
}

impl Farewell {
    /// Resolves when the connection may be closed.
    ///
    /// # Errors
    /// That nothing more comes can't be said.
    pub(crate) fn poll<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let too_long = match &mut self.too_long {
            Some(too_long) => too_long,
            too_long => {
                ready!(Pin::new(&mut *io).poll_shutdown(context))?;
                too_long.insert(Box::pin(sleep(PATIENCE)))
            }
        };
        // First: a peer that always has more to say takes all the time that there is for this.
        if too_long.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unwanted = [0; 4096];
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut *io).poll_read(context, &mut buffer));
            // Where the peer has gone some other way, it has gone.
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
