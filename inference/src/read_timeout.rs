//! [`with_read_timeout`]: a request that is begun has to be sent on. The stream of `ModelStreamInfer` may be silent for as long
//! as it likes, but not within a message.
//!
//! Knows nothing about what messages say, only how gRPC frames them: a flag, a length in four bytes, so many bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use chorus_proto::Failure;
use chorus_proto::v1::ErrorCode;
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::SERVICE_NAME;

/// The same request, which fails with DEADLINE_EXCEEDED once nothing of its message has come for `timeout`.
pub fn with_read_timeout(request: http::Request<Body>, timeout: Duration) -> http::Request<Body> {
    let path = request.uri().path();
    let is_stream =
        path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME)) == Some("/ModelStreamInfer");
    request.map(|body| {
        Body::new(Timed { body, timeout, between: !is_stream, sleep: None, framing: Framing::default() })
    })
}

struct Timed {
    body: Body,
    timeout: Duration,
    /// Whether silence between two messages counts, too.
    between: bool,
    /// Of the silence that is now.
    sleep: Option<Pin<Box<Sleep>>>,
    framing: Framing,
}

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
struct Framing {
    /// Of the next message's flag and length.
    head: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
}

const HEAD: usize = 5;

impl Framing {
    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data = &data[taken..];
                continue;
            }
            let (head, rest) = data.split_at(data.len().min(HEAD - self.head.len()));
            self.head.extend_from_slice(head);
            data = rest;
            if self.head.len() == HEAD {
                self.left = (&self.head[1..]).get_u32() as usize;
                self.head.clear();
            }
        }
    }

    fn is_within(&self) -> bool {
        self.left > 0 || !self.head.is_empty()
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = http_body::Body::poll_frame(Pin::new(&mut this.body), context) {
            this.sleep = None;
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.framing.take(data);
            }
            return Poll::Ready(frame);
        }
        if !this.between && !this.framing.is_within() {
            return Poll::Pending;
        }
        let timeout = this.timeout;
        ready!(this.sleep.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(context));
        let message =
            "request: its message did not come in time; allowed: pauses of limits.read_timeout_ms at most";
        Poll::Ready(Some(Err(Failure::new(ErrorCode::DeadlineExceeded, message).into())))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    /// A call whose body has these bytes and then nothing, and does not end.
    fn silent_after(method: &str, bytes: &'static [u8]) -> Body {
        let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(bytes)))]);
        let request = http::Request::post(format!("http://a/{SERVICE_NAME}/{method}"));
        let request = request.body(Body::new(StreamBody::new(frames.chain(stream::pending())))).unwrap();
        with_read_timeout(request, Duration::from_millis(200)).into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_between_messages_and_nothing_else_may() {
        let whole = b"\0\0\0\0\x02ab";
        for (method, bytes, may) in [
            ("ModelStreamInfer", &whole[..], true),
            ("ModelStreamInfer", &whole[..6], false),
            ("ModelStreamInfer", &whole[..3], false),
            ("ModelInfer", &whole[..6], false),
            ("ModelInfer", &whole[..], false),
        ] {
            let mut body = silent_after(method, bytes);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), bytes);
            match tokio::time::timeout(Duration::from_secs(3600), body.frame()).await {
                Err(_) => assert!(may, "{method} waits after {bytes:?}"),
                Ok(frame) => {
                    assert!(!may, "{method} ends after {bytes:?}");
                    assert_eq!(frame.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
                }
            }
        }
    }

    #[test]
    fn messages_are_followed_in_any_pieces() {
        let mut stream = vec![0, 0, 0, 0, 3, 7, 7, 7, 0, 0, 0, 0, 0, 1, 0, 0, 1, 4];
        stream.extend([9; 260]);
        let ends = [8, 13, 18 + 260];
        for size in [1, 2, 3, 7, 100, 1000] {
            let mut framing = Framing::default();
            let mut read = 0;
            for piece in stream.chunks(size) {
                framing.take(piece);
                read += piece.len();
                assert_eq!(framing.is_within(), !ends.contains(&read), "after {read} in pieces of {size}");
            }
            assert!(!framing.is_within());
        }
    }
}
