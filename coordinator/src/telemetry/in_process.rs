//! Calls that come from this process, and not over HTTP, seen as the others are.
//!
//! Knows nothing about what is asked or answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument;

use super::call::ObservedCall;
use super::method::Method;
use super::request_id::RequestId;
use super::requests::Requests;

/// An answer of many messages, which is over with the last one.
pub(crate) struct ObservedStream<S> {
    stream: S,
    call: Option<ObservedCall>,
}

/// Sees a call with one answer.
pub(crate) async fn observe_answer<Q, R, W>(
    requests: &Arc<Requests>,
    method: Method,
    request: Request<Q>,
    answer: impl FnOnce(Request<Q>) -> W,
) -> Result<Response<R>, Status>
where
    W: Future<Output = Result<Response<R>, Status>>,
{
    let (mut call, id, answered) = observe(requests, method, request, answer).await;
    call.end(answered.as_ref().map_or_else(Status::code, |_| Code::Ok));
    answered.map(|response| named(response, method, id))
}

/// Sees a call with an answer of many messages, to its end or to where nobody reads on.
pub(crate) async fn observe_stream<Q, S, W>(
    requests: &Arc<Requests>,
    method: Method,
    request: Request<Q>,
    answer: impl FnOnce(Request<Q>) -> W,
) -> Result<Response<ObservedStream<S>>, Status>
where
    W: Future<Output = Result<Response<S>, Status>>,
{
    let (mut call, id, answered) = observe(requests, method, request, answer).await;
    match answered {
        Ok(response) => {
            let response = response.map(|stream| ObservedStream { stream, call: Some(call) });
            Ok(named(response, method, id))
        }
        Err(status) => {
            call.end(status.code());
            Err(status)
        }
    }
}

async fn observe<Q, T, W: Future<Output = T>>(
    requests: &Arc<Requests>,
    method: Method,
    request: Request<Q>,
    answer: impl FnOnce(Request<Q>) -> W,
) -> (ObservedCall, RequestId, T) {
    let headers = request.metadata().as_ref();
    let id = RequestId::of(headers);
    let call = ObservedCall::arrived(requests, method, &id, headers);
    let span = call.span().clone();
    let answering = span.in_scope(|| answer(request));
    let answered = answering.instrument(span).await;
    (call, id, answered)
}

/// Says what the request is called, where logs have it.
fn named<T>(mut response: Response<T>, method: Method, id: RequestId) -> Response<T> {
    if method.is_work() {
        id.tell(response.metadata_mut().as_mut());
    }
    response
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for ObservedStream<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.stream).poll_next(context);
        let code = match &polled {
            Poll::Ready(None) => Code::Ok,
            Poll::Ready(Some(Err(status))) => status.code(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => return polled,
        };
        if let Some(mut call) = self.call.take() {
            call.end(code);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// What is counted of one call.
    async fn counted<W: Future>(call: impl FnOnce(Arc<Requests>) -> W) -> Vec<String> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        call(Arc::new(Requests::new())).await;
        let rendered = recorder.handle().render();
        let lines = rendered.lines().filter(|line| line.starts_with("chorus_request_seconds_count"));
        lines.map(str::to_owned).collect()
    }

    fn once(method: &str, code: &str) -> Vec<String> {
        vec![format!("chorus_request_seconds_count{{method=\"{method}\",code=\"{code}\"}} 1")]
    }

    #[tokio::test]
    async fn an_answer_is_counted_as_it_ends() {
        for (answer, code) in [(Ok(1), "ok"), (Err(Status::unavailable("gone")), "unavailable")] {
            let lines = counted(|requests| async move {
                let work = |_| async { answer.map(Response::new) };
                let _ = observe_answer(&requests, Method::Score, Request::new(()), work).await;
            });
            assert_eq!(lines.await, once("score", code));
        }
    }

    #[tokio::test]
    async fn a_stream_is_counted_at_its_end_and_one_that_nobody_reads_to_it_as_cancelled() {
        let whole = vec![Ok(1), Ok(2)];
        let broken = vec![Ok(1), Err(Status::internal("broken"))];
        for (messages, read, code) in
            [(whole.clone(), 3, "ok"), (broken, 2, "internal"), (whole, 1, "cancelled")]
        {
            let lines = counted(|requests| async move {
                let work = |_| async { Ok(Response::new(stream::iter(messages))) };
                let answer = observe_stream(&requests, Method::Generate, Request::new(()), work).await;
                answer.unwrap().into_inner().take(read).collect::<Vec<_>>().await
            });
            assert_eq!(lines.await, once("generate", code));
        }
    }

    #[tokio::test]
    async fn a_stream_that_never_begins_is_counted_as_it_is_refused() {
        let lines = counted(|requests| async move {
            let work = |_| async {
                Err::<Response<stream::Empty<Result<(), Status>>>, _>(Status::unauthenticated("who"))
            };
            let _ = observe_stream(&requests, Method::Generate, Request::new(()), work).await;
        });
        assert_eq!(lines.await, once("generate", "unauthenticated"));
    }
}
