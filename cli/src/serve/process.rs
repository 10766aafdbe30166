//! What both server commands begin with: signals, logs, and the thread for whoever looks at the process from outside.
//!
//! Knows nothing about what is served.

use std::net::SocketAddr;

use super::{background::Background, metrics};
use crate::{logging::LogArgs, shutdown::Shutdown};

/// What both server commands take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProcessArgs {
    /// Drain and end when stdin ends: for a parent that must not leave us behind
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A process that has begun.
pub(super) struct Process {
    pub(super) shutdown: Shutdown,
    background: Option<Background>,
}

impl ProcessArgs {
    /// Logs from now on, and listens for the signals that end the process.
    ///
    /// # Errors
    /// A flag that can't be used, or signals that can't be heard.
    pub(super) fn start(&self) -> anyhow::Result<Process> {
        crate::logging::start(&self.log)?;
        let shutdown = Shutdown::on_signals()?;
        if self.exit_with_parent {
            shutdown.on_end_of_stdin();
        }
        Ok(Process { shutdown, background: None })
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
