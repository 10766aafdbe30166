//! Processes that are started one by one and stopped together. Knows nothing about what they do.

use std::net::SocketAddr;

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    process::ProcessSpec,
    supervisor::{Found, Supervisor},
};
use crate::shutdown::Shutdown;

/// Processes that are stopped together.
pub(super) struct Group {
    supervisors: JoinSet<anyhow::Result<()>>,
    drain: CancellationToken,
    kill: CancellationToken,
}

/// Where a process will listen.
pub(super) type Listening = watch::Receiver<Option<Found>>;

impl Group {
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        Self { supervisors: JoinSet::new(), drain: CancellationToken::new(), kill: shutdown.kill.clone() }
    }

    pub(super) fn start(&mut self, spec: ProcessSpec, listen: SocketAddr) -> Listening {
        let (supervisor, listening) = Supervisor::new(spec, listen, self.drain.clone(), self.kill.clone());
        self.supervisors.spawn(supervisor.run());
        listening
    }

    /// The addresses, once all processes listen.
    ///
    /// # Errors
    /// One of them died before it did.
    pub(super) async fn all_listening(&mut self, listening: Vec<Listening>) -> anyhow::Result<Vec<Found>> {
        let addresses = async {
            let mut addresses = Vec::new();
            for mut process in listening {
                // Closed without an address means that its supervisor failed, which the other arm tells.
                match process.wait_for(Option::is_some).await.map(|found| *found) {
                    Ok(Some(found)) => addresses.push(found),
                    _ => std::future::pending().await,
                }
            }
            addresses
        };
        tokio::select! {
            addresses = addresses => Ok(addresses),
            failed = self.failed() => Err(failed),
        }
    }

    /// Waits for a supervisor that gives up.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        while let Some(ended) = self.supervisors.join_next().await {
            if let Err(error) = ended.map_err(anyhow::Error::from).and_then(|ended| ended) {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Drains all processes and waits until they have ended.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.drain.cancel();
        let mut result = Ok(());
        while let Some(ended) = self.supervisors.join_next().await {
            result = result.and(ended.map_err(anyhow::Error::from).and_then(|ended| ended));
        }
        result
    }
}
