//! [`Handle`]: how others see and change what the steward owns. Knows nothing about how a change is carried out.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::ReconfigureError;
use crate::config::{Config, MemberConfig};
use crate::ensemble::Ensemble;
use crate::quorum::Quorum;

/// A way to look at and change a running coordinator's configuration. Changes are made one after the other; one whose future
/// is dropped before it took effect is given up.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    in_force: watch::Receiver<Arc<Ensemble>>,
}

/// A configuration, and how many there have been since the start, it included.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// 1 at start, and one more with every change.
    pub revision: u64,
    /// What requests that begin now find.
    pub config: Config,
}

/// A list of members in place of the one in force.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberList {
    /// All of them, in member order.
    pub members: Vec<MemberConfig>,
    /// As it is where absent.
    pub quorum: Option<Quorum>,
    /// Refuses the list where another revision is in force.
    pub expected_revision: Option<u64>,
}

/// What is wanted, and who waits for it.
pub(super) struct Command {
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<Result<InForce, ReconfigureError>>,
}

/// A change, and whether workers that it adds may be down.
pub(super) struct Wish {
    pub(super) change: Change,
    pub(super) allow_down: bool,
}

pub(super) enum Change {
    To(Box<Config>),
    Members(MemberList),
    Reload,
}

impl InForce {
    pub(super) fn of(ensemble: &Ensemble) -> Self {
        Self { revision: ensemble.revision, config: ensemble.config.clone() }
    }
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, in_force: watch::Receiver<Arc<Ensemble>>) -> Self {
        Self { commands, in_force }
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        InForce::of(&self.in_force.borrow())
    }

    pub(crate) fn ensembles(&self) -> watch::Receiver<Arc<Ensemble>> {
        self.in_force.clone()
    }

    /// Goes over to another configuration. Unless `allow_down`, all workers that it adds must be up, within twice
    /// `limits.connect_timeout_ms`.
    ///
    /// # Errors
    /// Why that is not possible. Nothing has changed then.
    pub async fn reconfigure(&self, config: Config, allow_down: bool) -> Result<InForce, ReconfigureError> {
        self.ask(Change::To(Box::new(config)), allow_down).await
    }

    /// Replaces the list of members.
    ///
    /// # Errors
    /// As [`Handle::reconfigure`]; members that can't be, and another revision than the expected one.
    pub async fn set_members(&self, list: MemberList, allow_down: bool) -> Result<InForce, ReconfigureError> {
        self.ask(Change::Members(list), allow_down).await
    }

    /// Reads the configuration again from where it came from.
    ///
    /// # Errors
    /// As [`Handle::reconfigure`]; it can't be read, or came from nowhere.
    pub async fn reload(&self, allow_down: bool) -> Result<InForce, ReconfigureError> {
        self.ask(Change::Reload, allow_down).await
    }

    async fn ask(&self, change: Change, allow_down: bool) -> Result<InForce, ReconfigureError> {
        let (answer, answered) = oneshot::channel();
        let command = Command { wish: Wish { change, allow_down }, answer };
        self.commands.send(command).await.map_err(|_| ReconfigureError::ShuttingDown)?;
        answered.await.map_err(|_| ReconfigureError::ShuttingDown)?
    }
}
