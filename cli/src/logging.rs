//! Logs of the server commands: lines on stderr, as text or JSON. Knows nothing about what is logged.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::failure::UsageError;

/// What a server command logs, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs (on stderr)")]
pub(crate) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,chorus_worker=debug`
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    log: String,
    /// How a line looks
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Starts logging for this process.
///
/// # Errors
/// The filter is malformed.
pub(crate) fn start(arguments: &LogArgs) -> Result<(), UsageError> {
    let filter: EnvFilter = arguments
        .log
        .parse()
        .map_err(|error| UsageError(format!("--log {:?} is not a filter: {error}", arguments.log)))?;
    let colours = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Whoever reads stderr may be gone before a drain has ended; that must not stop the drain.
        .log_internal_errors(false);
    match arguments.log_format {
        LogFormat::Text => subscriber.with_ansi(colours).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
