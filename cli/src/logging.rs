//! Logs of the server commands: lines on stderr, as text or JSON. Knows nothing about what is logged.

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::failure::UsageError;

/// What a server command logs, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs (on stderr)")]
pub(crate) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,chorus_worker=debug`
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    log: String,
    /// How a line looks
    #[arg(long, value_enum, default_value = "text", env = "CHORUS_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A part of what takes spans and events in.
pub(crate) type SubscriberLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging for this process, and whatever else takes spans in, if there is anything.
///
/// # Errors
/// The filter is malformed.
pub(crate) fn start(arguments: &LogArgs, spans: Option<SubscriberLayer>) -> Result<(), UsageError> {
    let filter: EnvFilter = arguments
        .log
        .parse()
        .map_err(|error| UsageError(format!("--log {:?} is not a filter: {error}", arguments.log)))?;
    let colours = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // Whoever reads stderr may be gone before a drain has ended; that must not stop the drain.
        .log_internal_errors(false);
    let lines: SubscriberLayer = match arguments.log_format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    match spans {
        // What is not logged is not made.
        None => tracing_subscriber::registry().with(lines).with(filter).init(),
        Some(spans) => {
            let layers: Vec<SubscriberLayer> = vec![lines.with_filter(filter).boxed(), spans];
            tracing_subscriber::registry().with(layers).init();
        }
    }
    Ok(())
}
