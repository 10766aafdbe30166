//! The trace that a command is a part of, where whoever calls it says so in its environment, as other programs have it:
//! `TRACEPARENT` and `TRACESTATE`, in the words of W3C Trace Context.
//!
//! Knows nothing about what is asked.

use std::env;

use chorus_trace::{TRACEPARENT, TRACESTATE};
use tonic::{Request, metadata::MetadataValue};

/// A request of this command's.
pub(super) fn traced<T>(message: T) -> Request<T> {
    traced_as(message, |name| env::var(name).ok())
}

fn traced_as<T>(message: T, variable: impl Fn(&str) -> Option<String>) -> Request<T> {
    let mut request = Request::new(message);
    for header in [TRACEPARENT, TRACESTATE] {
        // What is none is the server's to leave aside; what can't travel is left here.
        let value = variable(&header.to_uppercase()).and_then(|value| MetadataValue::try_from(value).ok());
        if let Some(value) = value {
            request.metadata_mut().insert(header, value);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_trace_goes_on() {
        let request = traced_as(7, |name| match name {
            "TRACEPARENT" => Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            "TRACESTATE" => Some("no\nheader".to_owned()),
            _ => None,
        });
        assert!(request.metadata().get("traceparent").unwrap().to_str().unwrap().starts_with("00-0af7"));
        assert!(request.metadata().get("tracestate").is_none());
        assert!(traced_as(7, |_| None).metadata().is_empty());
    }
}
