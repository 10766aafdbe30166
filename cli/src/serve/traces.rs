//! Traces: spans of this process go to a collector over OTLP, by gRPC, where somebody says to which one.
//!
//! Knows nothing about what spans are of: those belong in a trace that have the field `otel.kind`. How much is sampled, and how
//! spans are batched, is said by OpenTelemetry's own environment variables, which its SDK reads.

use std::{env, time::Duration};

use anyhow::Context as _;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{Layer as _, filter::filter_fn};

use super::background::Background;
use super::collector::{self, Collector};
use crate::logging::SubscriberLayer;

/// How long the end of the process waits for spans to be taken.
const FLUSH: Duration = Duration::from_secs(3);

/// The field that makes a span one of a trace.
const KIND: &str = "otel.kind";

/// What both server commands take.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct TraceArgs {
    /// Send traces to a collector that speaks OTLP over gRPC: http://HOST:PORT or https://HOST:PORT (default: where
    /// OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere)
    #[arg(long, value_name = "URL", value_parser = collector::address)]
    otlp: Option<String>,
}

/// The way of this process's spans to their collector. Dropped, it sends what is left.
pub(super) struct Traces(SdkTracerProvider);

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
        let collector = Collector::chosen(self.otlp.as_deref(), of_file, |name| env::var(name).ok());
        let Some(collector) = collector else {
            return Ok(None);
        };
        let background = background()?;
        let exporter = {
            // Its connection lives there.
            let _entered = background.enter();
            let builder = SpanExporter::builder().with_tonic();
            match collector.channel(|name| env::var(name).ok())? {
                Some(channel) => builder.with_channel(channel).build(),
                None => builder.with_endpoint(collector.0).build(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
