//! What both server commands begin with: signals, logs, and the thread for whoever looks at the process from outside.
//!
//! Knows nothing about what is served.

use std::net::SocketAddr;

use super::{
    background::Background,
    metrics,
    traces::{TraceArgs, Traces},
};
use crate::{logging::LogArgs, shutdown::Shutdown};

/// What both server commands take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProcessArgs {
    /// Drain and end when stdin ends: for a parent that must not leave us behind
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    traces: TraceArgs,
}

/// A process that has begun.
pub(super) struct Process {
    pub(super) shutdown: Shutdown,
    /// Dropped before the thread that they need.
    _traces: Option<Traces>,
    background: Option<Background>,
}

impl ProcessArgs {
    /// Logs and collects spans from now on as this service, and listens for the signals that end the process. `otlp` is where the
    /// configuration file says that traces go.
    ///
    /// # Errors
    /// A flag that can't be used, or signals that can't be heard.
    pub(super) fn start(&self, service: &'static str, otlp: Option<&str>) -> anyhow::Result<Process> {
        let (traces, layer, background) = match self.traces.start(service, otlp, Background::new)? {
            Some((traces, layer, background)) => (Some(traces), Some(layer), Some(background)),
            None => (None, None, None),
        };
        crate::logging::start(&self.log, layer)?;
        let shutdown = Shutdown::on_signals()?;
        if self.exit_with_parent {
            shutdown.on_end_of_stdin();
        }
        Ok(Process { shutdown, _traces: traces, background })
    }
}

impl Process {
    /// Counts from now on, and serves what is counted at an address, if there is one.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub(super) async fn serve_metrics(&mut self, address: Option<SocketAddr>) -> anyhow::Result<()> {
        let Some(address) = address else {
            return Ok(());
        };
        let background = match self.background.take() {
            Some(background) => background,
            None => Background::new()?,
        };
        metrics::serve(address, self.background.insert(background)).await
    }
}
