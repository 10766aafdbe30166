//! [`ObserveLayer`]: every call that comes in over HTTP, seen from its arrival to its end.
//!
//! Knows nothing about what is asked or answered: it sees paths, headers and trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};
use tracing::Instrument;

use super::call::ObservedCall;
use super::method::Method;
use super::request_id::RequestId;
use super::requests::Requests;

/// Wraps a server's services.
#[derive(Debug, Clone)]
pub(crate) struct ObserveLayer(Arc<Requests>);

/// A service whose calls are seen.
#[derive(Debug, Clone)]
pub(crate) struct Observed<S> {
    service: S,
    requests: Arc<Requests>,
}

/// The body of an answer, which says at its end how the call ended.
pub(crate) struct ObservedBody<B> {
    body: B,
    call: Option<ObservedCall>,
}

impl ObserveLayer {
    pub(crate) fn new(requests: Arc<Requests>) -> Self {
        Self(requests)
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observed<S>;

    fn layer(&self, service: S) -> Observed<S> {
        Observed { service, requests: Arc::clone(&self.0) }
    }
}

impl<S, Q, R> Service<http::Request<Q>> for Observed<S>
where
    S: Service<http::Request<Q>, Response = http::Response<R>, Future: Send + 'static>,
    R: Body,
{
    type Response = http::Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let id = RequestId::of(request.headers());
        let mut call = ObservedCall::arrived(&self.requests, method, &id, request.headers());
        let span = call.span().clone();
        let answering = span.in_scope(|| self.service.call(request)).instrument(span);
        async move {
            let mut response = answering.await?;
            call.note(response.headers());
            if method.is_work() {
                id.tell(response.headers_mut());
            }
            Ok(response.map(|body| ObservedBody { body, call: Some(call) }))
        }
        .boxed()
    }
}

impl<B: Body + Unpin> Body for ObservedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut self.call)
        {
            call.note(trailers);
        }
        if let Poll::Ready(None) = polled {
            self.call = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::HeaderMap;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    type Pieces = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

    fn trailers(code: Code) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", (code as i32).into());
        trailers
    }

    /// What is counted of a call that is answered with these pieces, of which so many are read.
    async fn counted(headers: HeaderMap, pieces: Vec<Frame<Bytes>>, read: usize) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let answer = service_fn(move |_: http::Request<Empty<Bytes>>| {
            let pieces: Vec<_> = pieces.iter().map(copied).map(Ok).collect();
            let mut response = http::Response::new(Pieces::new(futures::stream::iter(pieces)));
            *response.headers_mut() = headers.clone();
            async move { Ok::<_, Infallible>(response) }
        });
        let service = ObserveLayer::new(Arc::new(Requests::new())).layer(answer);
        let request = http::Request::builder().uri("/chorus.v1.Ensemble/Score").header("x-request-id", "one");
        let response = service.oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "one");
        let mut body = response.into_body();
        for _ in 0..read {
            body.frame().await.transpose().unwrap();
        }
        drop(body);
        let rendered = recorder.handle().render();
        let lines = rendered.lines().filter(|line| line.starts_with("chorus_request_seconds_count"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn copied(frame: &Frame<Bytes>) -> Frame<Bytes> {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (_, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
        }
    }

    fn once(code: &str) -> String {
        format!("chorus_request_seconds_count{{method=\"score\",code=\"{code}\"}} 1")
    }

    #[tokio::test]
    async fn a_call_ends_as_its_trailers_say_or_its_headers_or_with_its_caller() {
        let pieces =
            |code| vec![Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers(code))];
        assert_eq!(counted(HeaderMap::new(), pieces(Code::Ok), 3).await, once("ok"));
        assert_eq!(counted(HeaderMap::new(), pieces(Code::Internal), 2).await, once("internal"));
        assert_eq!(counted(HeaderMap::new(), pieces(Code::Ok), 1).await, once("cancelled"));
        assert_eq!(counted(trailers(Code::Unavailable), vec![], 1).await, once("unavailable"));
    }
}
