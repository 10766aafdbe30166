//! [`ObservedCall`]: one call's span, how long it takes and how it ends.
//!
//! Knows nothing about how it comes in, what is asked or answered.

use std::sync::Arc;

use chorus_trace::{TRACEPARENT, TRACESTATE, continue_trace, trace_id};
use http::HeaderMap;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Span;

use super::method::Method;
use super::request_id::RequestId;
use super::requests::{Requests, name_of};

/// One call, from its arrival to its end: to its last byte, or to where its caller gave it up.
pub(super) struct ObservedCall {
    requests: Arc<Requests>,
    method: Method,
    arrived: Instant,
    span: Span,
    /// As far as it is known.
    code: Option<Code>,
}

/// What logs and traces say of a request. Whoever works on it fills the fields.
fn span(method: Method, id: &RequestId, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        method = method.name(),
        request_id = %id,
        trace_id = tracing::field::Empty,
        rule = tracing::field::Empty,
        plan = tracing::field::Empty,
        tokens = tracing::field::Empty,
        participants = tracing::field::Empty,
        missing = tracing::field::Empty,
        code = tracing::field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(traceparent) = said(TRACEPARENT) {
        continue_trace(&span, traceparent, said(TRACESTATE));
    }
    if let Some(trace_id) = trace_id(&span) {
        span.record("trace_id", trace_id);
    }
    span
}

impl ObservedCall {
    /// One that arrives now, with these headers.
    pub(super) fn arrived(
        requests: &Arc<Requests>,
        method: Method,
        id: &RequestId,
        headers: &HeaderMap,
    ) -> Self {
        let span = if method.is_work() { span(method, id, headers) } else { Span::none() };
        Self { requests: Arc::clone(requests), method, arrived: Instant::now(), span, code: None }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// It ended so.
    pub(super) fn end(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Takes in how it ended, where these headers or trailers say so.
    pub(super) fn note(&mut self, headers: &HeaderMap) {
        self.code = Status::from_header_map(headers).map(|status| status.code()).or(self.code);
    }
}

impl Drop for ObservedCall {
    fn drop(&mut self) {
        // Nobody gives up what has said how it ended.
        let code = self.code.unwrap_or(Code::Cancelled);
        let took = self.arrived.elapsed();
        self.requests.ended(self.method, code, took);
        self.span.record("code", name_of(code));
        self.span.in_scope(|| match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                self.span.record("otel.status_code", "ERROR");
                tracing::warn!(?took, "the request failed");
            }
            _ => tracing::debug!(?took, "the request is over"),
        });
    }
}
