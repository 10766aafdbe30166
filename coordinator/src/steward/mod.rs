//! The steward: one task that owns the configuration in force and the members' links, and changes them one request at a time.
//!
//! Whoever wants a change has a [`Handle`]. What differs between two configurations is decided in [`crate::config`]; here it
//! is carried out. Knows nothing about files, signals or gRPC.

mod error;
mod handle;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use error::ReconfigureError;
pub use handle::{Handle, InForce, MemberList};

use crate::config::{Config, Fate, MemberConfig};
use crate::ensemble::{Common, Ensemble};
use crate::link::GrpcReplica;
use crate::membership::{Connecting, Enrolled, Move, Newcomer};
use crate::run_error::RunError;
use crate::security::Setup;
use handle::{Change, Command, Wish};

/// Changes that wait for the one in progress.
const COMMANDS: usize = 8;

/// Reads the configuration again from where it came from, or says in a sentence why that is not possible. Called on a thread
/// where it may take its time.
pub type Source = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Owns what can be changed.
pub(crate) struct Steward {
    connecting: Connecting,
    common: Common,
    source: Option<Source>,
    /// The members in force, by name.
    enrolled: BTreeMap<String, Enrolled>,
    in_force: watch::Sender<Arc<Ensemble>>,
    commands: mpsc::Receiver<Command>,
    /// Links of members that were removed: requests may need them still.
    retired: Vec<Weak<GrpcReplica>>,
}

/// What has to be there before a configuration can take effect.
#[derive(Default)]
struct Preparations {
    enrolled: Vec<(String, Enrolled)>,
    moves: Vec<Move>,
}

impl Steward {
    /// Starts to connect to the members. Needs a tokio runtime.
    ///
    /// # Errors
    /// A configuration that can't be used; never one that was checked.
    pub(crate) fn new(
        config: Config,
        connecting: Connecting,
        common: Common,
    ) -> Result<(Self, Handle), RunError> {
        let enroll = |member: &MemberConfig| {
            let enrolled = connecting.enroll(member);
            let enrolled =
                enrolled.map_err(|source| RunError::Address { name: member.name.clone(), source })?;
            Ok((member.name.clone(), enrolled))
        };
        let enrolled: BTreeMap<String, Enrolled> =
            config.connected().iter().map(enroll).collect::<Result<_, RunError>>()?;
        let member = |name: &str| Some(Arc::clone(&enrolled.get(name)?.member));
        let ensemble = Ensemble::new(config, 1, member, common.clone())?;
        let (in_force, current) = watch::channel(Arc::new(ensemble));
        let (sender, commands) = mpsc::channel(COMMANDS);
        let steward =
            Self { connecting, common, source: None, enrolled, in_force, commands, retired: Vec::new() };
        Ok((steward, Handle::new(sender, current)))
    }

    pub(crate) fn read_again_from(&mut self, source: Source) {
        self.source = Some(source);
    }

    /// Carries out what is wanted until the server drains, and gives back what has to be disconnected then.
    pub(crate) async fn run(mut self) -> Self {
        let draining = self.common.draining.clone();
        loop {
            let command = tokio::select! {
                // What is wanted of a server that drains is refused by dropping it.
                biased;
                () = draining.cancelled() => break,
                Some(command) = self.commands.recv() => command,
            };
            let Command { wish, mut answer } = command;
            let is_reload = matches!(wish.change, Change::Reload);
            let outcome = tokio::select! {
                biased;
                () = draining.cancelled() => break,
                // Until it takes effect, and then it is done, a change may be given up at any await.
                () = answer.closed() => continue,
                outcome = self.obey(wish) => outcome,
            };
            let revision = self.in_force.borrow().revision;
            self.common.settings.changed(revision, outcome.is_ok(), is_reload);
            // Who has hung up since finds what is in force.
            let _ = answer.send(outcome);
        }
        self
    }

    /// Sends what is queued and ends all links.
    pub(crate) async fn disconnect(&self) {
        join_all(self.enrolled.values().map(Enrolled::disconnect)).await;
        let retired: Vec<_> = self.retired.iter().filter_map(Weak::upgrade).collect();
        join_all(retired.iter().map(|link| link.disconnect())).await;
    }

    async fn obey(&mut self, wish: Wish) -> Result<InForce, ReconfigureError> {
        let Wish { change, allow_down } = wish;
        let config = match change {
            Change::To(config) => *config,
            Change::Members(list) => self.with_members(list)?,
            Change::Reload => self.read_again().await?,
        };
        self.reconfigure(config, allow_down).await?;
        Ok(InForce::of(&self.in_force.borrow()))
    }

    fn with_members(&self, list: MemberList) -> Result<Config, ReconfigureError> {
        let ensemble = self.in_force.borrow();
        let in_force = ensemble.revision;
        match list.expected_revision {
            Some(expected) if expected != in_force => Err(ReconfigureError::Revision { expected, in_force }),
            _ => Ok(ensemble.config.with_members(list.members, list.quorum)?),
        }
    }

    async fn read_again(&self) -> Result<Config, ReconfigureError> {
        let source = self.source.clone().ok_or(ReconfigureError::NoSource)?;
        let read = tokio::task::spawn_blocking(move || source()).await;
        let read = read.unwrap_or_else(|_| Err("the reading was interrupted".to_owned()));
        read.map_err(ReconfigureError::Unreadable)
    }

    /// Goes over to a configuration that was checked. Nothing has changed where that fails, or is given up.
    async fn reconfigure(&mut self, next: Config, allow_down: bool) -> Result<(), ReconfigureError> {
        let ensemble = Arc::clone(&self.in_force.borrow());
        ensemble.config.may_become(&next)?;
        let changes = ensemble.config.changes(&next);
        if changes.is_empty() {
            tracing::info!(
                revision = ensemble.revision,
                "the configuration stays as it is: nothing was changed"
            );
            return Ok(());
        }
        let security = Setup::new(&next)?;
        let preparations = self.prepare(&ensemble.config, &next)?;
        if !allow_down {
            // A connection, and a handshake for which there is no setting of its own.
            preparations.until_up(2 * next.limits.connect_timeout()).await?;
        }
        self.check_learned(&next, &preparations)?;
        self.take_effect(next, ensemble.revision + 1, preparations)?;
        self.common.security.replace(security);
        let changes = changes.join("; ");
        tracing::info!(revision = ensemble.revision + 1, changes, "the configuration has changed");
        Ok(())
    }

    fn prepare(&self, config: &Config, next: &Config) -> Result<Preparations, ReconfigureError> {
        let mut preparations = Preparations::default();
        for member in &next.connected() {
            let name = &member.name;
            let failed = |source| ReconfigureError::Address { name: name.clone(), source };
            match (config.fate(member), self.enrolled.get(name)) {
                (Fate::Stays, Some(_)) => {}
                (Fate::Moves(addresses), Some(enrolled)) => {
                    preparations.moves.push(enrolled.prepare(&addresses).map_err(failed)?);
                }
                _ => {
                    let enrolled = self.connecting.enroll(member).map_err(failed)?;
                    preparations.enrolled.push((name.clone(), enrolled));
                }
            }
        }
        Ok(preparations)
    }

    /// Whether learned weights are those of the members that are known.
    fn check_learned(&self, next: &Config, preparations: &Preparations) -> Result<(), ReconfigureError> {
        let Some(learned) = next.learned() else {
            return Ok(());
        };
        let new = &preparations.enrolled;
        let card = |name: &String| {
            let new = new.iter().find(|(new, _)| new == name).map(|(_, enrolled)| enrolled);
            new.or_else(|| self.enrolled.get(name))?.member.card()
        };
        let cards: Vec<_> = next.member_names().iter().map(card).collect();
        Ok(learned.check(cards.iter().map(Option::as_deref))?)
    }

    /// Without an await: a change has taken effect, or has not.
    fn take_effect(
        &mut self,
        next: Config,
        revision: u64,
        preparations: Preparations,
    ) -> Result<(), ReconfigureError> {
        let Preparations { enrolled, moves } = preparations;
        let new = |name: &str| enrolled.iter().find(|(new, _)| new == name).map(|(_, enrolled)| enrolled);
        let member = |name: &str| {
            let enrolled = new(name).or_else(|| self.enrolled.get(name))?;
            Some(Arc::clone(&enrolled.member))
        };
        let connected = next.connected();
        let ensemble = Ensemble::new(next, revision, member, self.common.clone())?;
        // From here on nothing fails.
        moves.into_iter().for_each(Move::take_effect);
        self.retired.retain(|link| link.strong_count() > 0);
        let stays = |name: &String| connected.iter().any(|member| member.name == *name);
        for (_, removed) in self.enrolled.extract_if(.., |name, _| !stays(name)) {
            self.retired.extend(removed.links());
        }
        for (name, enrolled) in enrolled {
            if let Some(replaced) = self.enrolled.insert(name, enrolled) {
                self.retired.extend(replaced.links());
            }
        }
        self.in_force.send_replace(Arc::new(ensemble));
        Ok(())
    }
}

impl Preparations {
    /// Resolves when every worker that is new is up.
    async fn until_up(&self, patience: Duration) -> Result<(), ReconfigureError> {
        let deadline = Instant::now() + patience;
        let enrolled = self.enrolled.iter().map(|(_, enrolled)| enrolled.newcomer());
        let newcomers = enrolled.chain(self.moves.iter().filter_map(Move::newcomer));
        let arrivals = newcomers.map(|newcomer| async move { arrival(&newcomer, deadline).await });
        let absent: Vec<_> = join_all(arrivals).await.into_iter().filter_map(Result::err).collect();
        if absent.is_empty() { Ok(()) } else { Err(ReconfigureError::NotUp(absent)) }
    }
}

/// Who did not arrive, and why.
async fn arrival(newcomer: &Newcomer, deadline: Instant) -> Result<(), (String, String)> {
    let arrived = tokio::time::timeout_at(deadline, newcomer.arrives()).await;
    let arrived = arrived.unwrap_or_else(|_| Err(newcomer.reason()));
    arrived.map_err(|reason| (newcomer.name().to_owned(), reason))
}
