//! Traces: spans of this process go to a collector over OTLP, by gRPC, where somebody says to which one.
//!
//! Knows nothing about what spans are of: those belong in a trace that have the field `otel.kind`. How much is sampled, and how
//! spans are batched, is said by OpenTelemetry's own environment variables, which its SDK reads.

use std::{env, time::Duration};

use anyhow::Context as _;
use chorus_coordinator::config::Telemetry;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{Layer as _, filter::filter_fn};

use super::background::Background;
use crate::logging::SubscriberLayer;

/// How long the end of the process waits for spans to be taken.
const FLUSH: Duration = Duration::from_secs(3);

/// The field that makes a span one of a trace.
const KIND: &str = "otel.kind";

/// What both server commands take.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct TraceArgs {
    /// Send traces to a collector that speaks OTLP over gRPC, for example http://127.0.0.1:4317 (default: where
    /// OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere)
    #[arg(long, value_name = "URL", value_parser = collector)]
    otlp: Option<String>,
}

/// The way of this process's spans to their collector. Dropped, it sends what is left.
pub(super) struct Traces(SdkTracerProvider);

/// Where spans go.
#[derive(Debug, PartialEq, Eq)]
enum Collector {
    At(String),
    /// Where the environment says, as the exporter reads it.
    OfEnvironment,
}

impl TraceArgs {
    /// Begins to collect spans as this service, where that is wanted: by the flag, the environment or the configuration file.
    ///
    /// # Errors
    /// The exporter can't be made of what the environment says.
    pub(super) fn start(
        &self,
        service: &'static str,
        of_file: Option<&str>,
        background: impl FnOnce() -> anyhow::Result<Background>,
    ) -> anyhow::Result<Option<(Traces, SubscriberLayer, Background)>> {
        let Some(collector) = self.collector(of_file, |name| env::var(name).ok()) else {
            return Ok(None);
        };
        let background = background()?;
        let exporter = {
            // Its connection lives there.
            let _entered = background.enter();
            let builder = SpanExporter::builder().with_tonic();
            match collector {
                Collector::At(url) => builder.with_endpoint(url).build(),
                Collector::OfEnvironment => builder.build(),
            }
        };
        let exporter = exporter.context("traces can't be sent")?;
        // Spans wait in a bounded queue of its own thread; those that find it full are dropped, and nobody waits.
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource(service, |name| env::var(name).ok()))
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("chorus"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // Nobody asks for it, and it costs something whenever a task goes on.
            .with_context_activation(false)
            .with_filter(filter_fn(belongs_in_a_trace).with_max_level_hint(LevelFilter::INFO));
        Ok(Some((Traces(provider), layer.boxed(), background)))
    }

    /// A flag counts more than the environment, and that more than a file.
    fn collector(
        &self,
        of_file: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Collector> {
        let is =
            |name: &str, value: &str| variable(name).is_some_and(|given| given.eq_ignore_ascii_case(value));
        let is_set = |name: &str| variable(name).is_some_and(|given| !given.is_empty());
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        if let Some(url) = &self.otlp {
            return Some(Collector::At(url.clone()));
        }
        if is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_ENDPOINT") {
            return Some(Collector::OfEnvironment);
        }
        of_file.map(|url| Collector::At(url.to_owned()))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans were not taken");
        }
    }
}

fn belongs_in_a_trace(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field(KIND).is_some()
}

/// Who sends: this service, unless the environment has another name for it.
fn resource(service: &'static str, variable: impl Fn(&str) -> Option<String>) -> Resource {
    let says_name = variable("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || variable("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|attributes| attributes.contains("service.name="));
    let resource =
        Resource::builder().with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))]);
    if says_name { resource.build() } else { resource.with_service_name(service).build() }
}

fn collector(url: &str) -> Result<String, String> {
    let telemetry = Telemetry { otlp: Some(url.to_owned()) };
    telemetry.check().map(|()| url.to_owned()).map_err(|_| "expected http://HOST:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<&str>, file: Option<&str>, environment: &[(&str, &str)]) -> Option<Collector> {
        let arguments = TraceArgs { otlp: flag.map(str::to_owned) };
        arguments.collector(file, |name| {
            let variable = environment.iter().find(|(of, _)| *of == name);
            variable.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_flag_counts_more_than_the_environment_and_that_more_than_a_file() {
        let at = |url: &str| Some(Collector::At(url.to_owned()));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        assert_eq!(chosen(None, None, &[]), None);
        assert_eq!(chosen(None, None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(chosen(None, Some("http://f:1"), &[]), at("http://f:1"));
        assert_eq!(chosen(None, Some("http://f:1"), &[endpoint]), Some(Collector::OfEnvironment));
        assert_eq!(chosen(Some("http://a:1"), Some("http://f:1"), &[endpoint]), at("http://a:1"));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(chosen(Some("http://a:1"), None, &[endpoint, off]), None);
        }
    }

    #[test]
    fn who_sends_has_the_name_that_the_environment_gives_it() {
        let name = |variables: &'static [(&str, &str)]| {
            let resource = resource("chorus-worker", |name| {
                let variable = variables.iter().find(|(of, _)| *of == name);
                variable.map(|(_, value)| (*value).to_owned())
            });
            resource.get(&opentelemetry::Key::new("service.name")).map(|name| name.to_string())
        };
        assert_eq!(name(&[]).as_deref(), Some("chorus-worker"));
        assert_ne!(name(&[("OTEL_SERVICE_NAME", "mine")]).as_deref(), Some("chorus-worker"));
    }
}
