//! Keeps one process running: starts it, notices its death, starts it again at the same address, stops it.
//!
//! Knows nothing about what the process does.

use std::{net::SocketAddr, time::Instant};

use anyhow::anyhow;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    process::{PageAddress, Process, ProcessSpec},
    restart::{RestartPolicy, Restarts},
};
use crate::failure::{note, one_line, warn};

/// Where a process is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: SocketAddr,
    /// Its page, where it serves one.
    pub(super) page: Option<PageAddress>,
}

/// One supervised process.
#[derive(Debug)]
pub(super) struct Supervisor {
    spec: ProcessSpec,
    /// Where it shall listen. A port of 0 becomes the port of its first start, so that others find it again.
    listen: SocketAddr,
    restarts: Restarts,
    /// Where it is found, once it has listened for the first time.
    first_listening: watch::Sender<Option<Found>>,
    drain: CancellationToken,
    kill: CancellationToken,
}

/// How one life of the process ended.
enum LifeEnd {
    Stopped,
    Died { reason: String },
}

impl Supervisor {
    /// A supervisor that drains its process when `drain` is cancelled, and kills it when `kill` is; and the address of
    /// the process once it listens.
    pub(super) fn new(
        spec: ProcessSpec,
        listen: SocketAddr,
        drain: CancellationToken,
        kill: CancellationToken,
    ) -> (Self, watch::Receiver<Option<Found>>) {
        let (first_listening, address) = watch::channel(None);
        let restarts = Restarts::new(RestartPolicy::default());
        let supervisor = Self { spec, listen, restarts, first_listening, drain, kill };
        (supervisor, address)
    }

    /// Runs until the process was stopped on demand.
    ///
    /// # Errors
    /// The process died before it had ever listened: starting it again would not help.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let end =
                self.live_once().await.unwrap_or_else(|error| LifeEnd::Died { reason: one_line(&error) });
            let LifeEnd::Died { reason } = end else {
                return Ok(());
            };
            if self.first_listening.borrow().is_none() {
                return Err(anyhow!("{}: {reason}", self.spec.name));
            }
            let delay = self.restarts.died(Instant::now());
            warn(&format!(
                "{} stopped: {reason}; starting it again in {} ms",
                self.spec.name,
                delay.as_millis()
            ));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.drain.cancelled() => return Ok(()),
            }
        }
    }

    /// From one start to the end that follows.
    async fn live_once(&mut self) -> anyhow::Result<LifeEnd> {
        let mut process = Process::start(&self.spec, self.listen)?;
        tokio::select! {
            // A wish to stop wins over whatever the process does at the same moment.
            biased;
            () = self.drain.cancelled() => {
                process.stop(&self.kill).await?;
                return Ok(LifeEnd::Stopped);
            }
            address = process.listening() => {
                if let Some(address) = address? {
                    self.listens(Found { address, page: process.page() });
                }
            }
        }
        tokio::select! {
            biased;
            () = self.drain.cancelled() => {
                process.stop(&self.kill).await?;
                Ok(LifeEnd::Stopped)
            }
            reason = process.ended() => Ok(LifeEnd::Died { reason: reason? }),
        }
    }

    fn listens(&mut self, found: Found) {
        self.restarts.listening(Instant::now());
        let Found { address, page } = found;
        self.listen = address;
        if self.first_listening.send_replace(Some(found)).is_some() {
            let page = page.map(|page| format!(", its page at {page}")).unwrap_or_default();
            note(&format!("{} is back at {address}{page}", self.spec.name));
        }
    }
}
