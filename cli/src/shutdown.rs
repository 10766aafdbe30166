//! When a command that runs for long has to end: signals, and the death of the process that started it.
//!
//! Knows nothing about what has to be drained.

use std::{io::Read as _, time::Duration};

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a process whose parent is gone may drain: nobody is left to kill it.
const ORPHAN_DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Two wishes of whoever runs a process: end in order, and end now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown {
    /// Cancelled by the first SIGINT or SIGTERM: finish what is running, then end.
    pub(crate) drain: CancellationToken,
    /// Cancelled by the second: end now.
    pub(crate) kill: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGINT (Ctrl-C) and SIGTERM from now on.
    ///
    /// # Errors
    /// The signal handlers can't be set up.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let shutdown = Self::default();
        let mut signals = Signals::new().context("can't listen for signals")?;
        let Self { drain, kill } = shutdown.clone();
        tokio::spawn(async move {
            signals.next().await;
            drain.cancel();
            signals.next().await;
            kill.cancel();
        });
        Ok(shutdown)
    }

    /// Also drains when stdin ends, which is when the parent that holds its other end is gone, however it died.
    pub(crate) fn on_end_of_stdin(&self) {
        let (ended, end) = oneshot::channel::<()>();
        // A thread of its own: a blocked read would keep tokio's runtime from ending, but not the process.
        std::thread::spawn(move || {
            let mut ignored = [0; 64];
            let mut stdin = std::io::stdin().lock();
            while stdin.read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
            drop(ended);
        });
        let Self { drain, kill } = self.clone();
        tokio::spawn(async move {
            // Only ever dropped, never sent.
            let _closed = end.await;
            drain.cancel();
            tokio::time::sleep(ORPHAN_DRAIN_LIMIT).await;
            kill.cancel();
        });
    }
}

/// SIGINT (Ctrl-C) and SIGTERM, heard from [`Signals::new`] on, which needs a runtime.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
