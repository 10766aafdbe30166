//! How long requests take and how they end, as metrics. Knows nothing about what they ask.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::Unit;
use tonic::Code;

use super::method::Method;

const REQUEST: &str = "chorus_request_seconds";

/// gRPC's codes, by their number.
const CODES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// A histogram for each method and code. They are made when they are needed first, since most codes never come.
pub(crate) struct Requests([[OnceLock<metrics::Histogram>; CODES.len()]; Method::ALL.len()]);

impl Requests {
    pub(crate) fn new() -> Self {
        metrics::describe_histogram!(
            REQUEST,
            Unit::Seconds,
            "From a request's arrival to the last byte of its answer, by method and gRPC code"
        );
        Self(std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())))
    }

    /// One that is over.
    pub(crate) fn ended(&self, method: Method, code: Code, took: Duration) {
        let place = self.0.get(method as usize).and_then(|codes| codes.get(code as usize));
        let histogram = place.map(|place| {
            place.get_or_init(
                || metrics::histogram!(REQUEST, "method" => method.name(), "code" => name_of(code)),
            )
        });
        if let Some(histogram) = histogram {
            histogram.record(took.as_secs_f64());
        }
    }
}

/// How a code is written in a label or a span.
pub(crate) fn name_of(code: Code) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or("unknown")
}

impl fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Requests")
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_method_and_code_is_counted_by_itself() {
        let builder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap();
        let recorder = builder.build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let requests = Requests::new();
            requests.ended(Method::Score, Code::Ok, Duration::from_millis(500));
            requests.ended(Method::Score, Code::Ok, Duration::from_secs(2));
            requests.ended(Method::Other, Code::Unauthenticated, Duration::ZERO);
        });
        let rendered = recorder.handle().render();
        for line in [
            "chorus_request_seconds_bucket{method=\"score\",code=\"ok\",le=\"1\"} 1",
            "chorus_request_seconds_count{method=\"score\",code=\"ok\"} 2",
            "chorus_request_seconds_count{method=\"other\",code=\"unauthenticated\"} 1",
        ] {
            assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
        }
    }

    #[test]
    fn codes_have_the_names_of_the_specification() {
        for (number, name) in (0..).zip(CODES) {
            let code = format!("{:?}", Code::from_i32(number));
            assert_eq!(name.replace('_', ""), code.to_lowercase());
        }
    }
}
