//! SIGHUP: files are read again. Knows nothing about what changes.

use anyhow::Context as _;
use chorus_coordinator::Handle;

use crate::failure::one_line;

/// SIGHUP, heard from [`Hangups::new`] on, which needs a runtime. On systems without it there are none.
pub(super) struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    /// # Errors
    /// The signal handler can't be set up.
    pub(super) fn new() -> anyhow::Result<Self> {
        #[cfg(unix)]
        return {
            use tokio::signal::unix::{SignalKind, signal};
            let hangup = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
            Ok(Self { hangup })
        };
        #[cfg(not(unix))]
        return Ok(Self {});
    }

    /// Has the configuration read again at each of them. What comes while that goes on is one more in the end.
    pub(super) async fn reload(mut self, handle: Handle) {
        loop {
            self.next().await;
            tracing::info!("SIGHUP: reading the configuration file again");
            // What has changed is logged where it changes.
            if let Err(error) = handle.reload(false).await {
                let reason = one_line(&error.into());
                tracing::error!(reason, "the configuration stays as it is");
            }
        }
    }

    /// Resolves at the next one.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
