//! Where a span stands in a trace, as it travels from process to process: the `traceparent` of W3C Trace Context.
//!
//! Knows nothing about what spans are of or where they are sent. Where nobody collects them, or a trace is not sampled, nothing
//! is made or sent: the functions here look once, and that is all.

use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The names of the headers, and what a caller may set in the environment in capitals.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// Of a `traceparent`, in bytes: the version that there is has 55.
pub const LONGEST_TRACEPARENT: usize = 128;

/// What came from elsewhere.
struct Came<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

/// What is to be sent.
#[derive(Default)]
struct Sent(Option<String>);

/// Makes a span that has just been made a part of the trace that a `traceparent` names. One that is none is left aside, as the
/// recommendation wants.
pub fn continue_trace(span: &Span, traceparent: &str, tracestate: Option<&str>) {
    let came = Came { traceparent, tracestate };
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&came));
    if context.span().span_context().is_valid() {
        // A span that nobody collects has no place in a trace.
        let _ = span.set_parent(context);
    }
}

/// Whether what happens in a span is recorded.
pub fn is_sampled(span: &Span) -> bool {
    !span.is_disabled() && span.context().span().span_context().is_sampled()
}

/// The trace that a span is of, as hexadecimal digits; none where nobody collects it.
pub fn trace_id(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let of = span.span_context();
    of.is_valid().then(|| of.trace_id().to_string())
}

/// What is sent to another process so that its spans are children of this one; none where the trace is not sampled.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut sent = Sent::default();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut sent));
    sent.0
}

impl Extractor for Came<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Injector for Sent {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::{
        propagation::TraceContextPropagator,
        trace::{Sampler, SdkTracerProvider},
    };
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    /// Runs it where spans are collected.
    fn collecting(test: impl FnOnce()) {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test);
    }

    #[test]
    fn a_trace_goes_on_in_the_next_process() {
        collecting(|| {
            let span = tracing::info_span!("request");
            continue_trace(&span, SAMPLED, None);
            assert!(is_sampled(&span));
            assert_eq!(trace_id(&span).unwrap(), "0af7651916cd43dd8448eb211c80319c");
            let child = span.in_scope(|| tracing::info_span!("step"));
            let sent = traceparent(&child).unwrap();
            let parts: Vec<&str> = sent.split('-').collect();
            assert_eq!((parts[0], parts[1], parts[3]), ("00", "0af7651916cd43dd8448eb211c80319c", "01"));
            assert_ne!(parts[2], "b7ad6b7169203331", "it is the child's own");
            assert!(sent.len() <= LONGEST_TRACEPARENT);
        });
    }

    #[test]
    fn what_is_not_sampled_is_not_sent_and_what_is_no_trace_begins_none() {
        collecting(|| {
            let span = tracing::info_span!("request");
            continue_trace(&span, NOT_SAMPLED, None);
            assert_eq!((is_sampled(&span), traceparent(&span)), (false, None));
            assert_eq!(
                trace_id(&span).unwrap(),
                "0af7651916cd43dd8448eb211c80319c",
                "logs name it all the same"
            );
            for other in ["", "00", "rubbish", &SAMPLED.to_uppercase().replace('0', "x"), &SAMPLED[..50]] {
                let span = tracing::info_span!("request");
                continue_trace(&span, other, None);
                assert!(!is_sampled(&span), "{other}");
                assert_ne!(trace_id(&span).unwrap(), "0af7651916cd43dd8448eb211c80319c", "{other}");
            }
        });
    }

    #[test]
    fn without_anybody_who_collects_nothing_is_known() {
        let span = tracing::info_span!("request");
        continue_trace(&span, SAMPLED, None);
        assert_eq!((is_sampled(&span), trace_id(&span), traceparent(&span)), (false, None, None));
    }
}
