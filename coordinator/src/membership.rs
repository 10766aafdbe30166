//! From the configuration of a member to a member: links to its replicas, and a name looked up again and again.
//!
//! Knows nothing about sessions, rules or requests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio_util::task::AbortOnDropHandle;

use crate::agreement::Agreement;
use crate::config::{Config, Location, MemberConfig};
use crate::doubts::Doubts;
use crate::ensemble::Common;
use crate::link::{GrpcReplica, InvalidAddress};
use crate::member::Member;
use crate::network::Network;
use crate::replica::{Presence, Replica};

/// What every member's links have in common.
#[derive(Clone)]
pub(crate) struct Connecting {
    network: Arc<dyn Network>,
    agreement: Arc<Agreement>,
    doubts: Doubts,
    connect_timeout: Duration,
    hedge_share: f32,
    refresh: Duration,
    /// Whom workers prove to be over TLS, where that is configured.
    server_name: Option<String>,
}

/// A member with the links to its replicas. Dropping it ends them once no session needs them any more.
pub(crate) struct Enrolled {
    pub(crate) member: Arc<Member>,
    links: Arc<Links>,
    /// Of a name; absent where addresses were given.
    lookups: Option<AbortOnDropHandle<()>>,
}

/// Other replicas for a member, connected to and not its own yet. Dropping it ends the links that are new.
pub(crate) struct Move {
    links: Arc<Links>,
    all: Vec<Arc<GrpcReplica>>,
    /// Those among them that the member does not have.
    new: Vec<Arc<GrpcReplica>>,
}

/// Replicas that nobody has spoken with yet.
pub(crate) struct Newcomer {
    /// The member, or a stand-in that has these replicas and no others.
    member: Arc<Member>,
    /// Of a name nobody says which of its addresses serve: one is enough.
    by_name: bool,
}

/// The links of one member, by address.
struct Links {
    member: Arc<Member>,
    connecting: Connecting,
    /// The name that stands for all of them, if one does.
    name: Option<String>,
    by_address: Mutex<BTreeMap<String, Arc<GrpcReplica>>>,
}

impl Connecting {
    pub(crate) fn new(config: &Config, network: Arc<dyn Network>, common: &Common) -> Self {
        Self {
            network,
            agreement: Arc::clone(&common.agreement),
            doubts: common.doubts.clone(),
            connect_timeout: config.limits.connect_timeout(),
            hedge_share: config.resilience.hedge_share as f32,
            refresh: config.resilience.dns_refresh(),
            server_name: config.worker_tls.as_ref().and_then(|tls| tls.server_name.clone()),
        }
    }

    /// `name` is the one that the address was found by.
    fn connect(
        &self,
        member: &str,
        address: &str,
        name: Option<&str>,
    ) -> Result<GrpcReplica, InvalidAddress> {
        let server_name = self.server_name.as_deref().or(name);
        let Self { network, connect_timeout, agreement, doubts, .. } = self;
        GrpcReplica::connect(network, member, address, server_name, *connect_timeout, agreement, doubts)
    }

    /// Starts to connect to a member's replicas. Members are enrolled in the order of the configuration. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// An address that can't be connected to; never for a configuration that was checked.
    pub(crate) fn enroll(&self, config: &MemberConfig) -> Result<Enrolled, InvalidAddress> {
        let member = Arc::new(Member::new(&config.name, [], self.hedge_share));
        let location = config.address.location();
        let location = location.map_err(|error| InvalidAddress::new(&error.to_string()))?;
        let name = match &location {
            Location::Name { host, .. } => Some(host.clone()),
            Location::Fixed(_) => None,
        };
        let links = Arc::new(Links {
            member: Arc::clone(&member),
            connecting: self.clone(),
            name,
            by_address: Mutex::default(),
        });
        let lookups = match location {
            Location::Fixed(addresses) => {
                links.set(&addresses)?;
                None
            }
            Location::Name { host, port, tls } => {
                let lookups = look_up(Arc::clone(&links), host, port, tls);
                Some(AbortOnDropHandle::new(tokio::spawn(lookups)))
            }
        };
        Ok(Enrolled { member, links, lookups })
    }
}

impl Move {
    /// The replicas that are new, if there are any.
    pub(crate) fn newcomer(&self) -> Option<Newcomer> {
        if self.new.is_empty() {
            return None;
        }
        let new = self.new.iter().map(|link| Arc::clone(link) as Arc<dyn Replica>);
        let member = Arc::new(Member::new(self.links.member.name(), new, 0.0));
        Some(Newcomer { member, by_name: false })
    }

    /// Makes them the member's. A link that is not wanted any more ends with the last session on it.
    pub(crate) fn take_effect(self) {
        let Self { links, all, .. } = self;
        links.member.set_replicas(all.iter().map(|link| Arc::clone(link) as Arc<dyn Replica>));
        *links.by_address() = all.into_iter().map(|link| (link.address().to_owned(), link)).collect();
    }
}

impl Newcomer {
    pub(crate) fn name(&self) -> &str {
        self.member.name()
    }

    /// Resolves when every replica is up (one, of a name), or one has been refused.
    pub(crate) async fn arrives(&self) -> Result<(), String> {
        loop {
            let changes = self.member.changed();
            if let Some(arrived) = self.arrived() {
                return arrived;
            }
            changes.await;
        }
    }

    /// What is known of those that are not up.
    pub(crate) fn reason(&self) -> String {
        let reasons = self.presences().into_iter().filter(|presence| !presence.is_up());
        let reasons: Vec<String> = reasons.map(|presence| presence.reason().to_owned()).collect();
        if reasons.is_empty() { "no replica of it is known".to_owned() } else { reasons.join("; ") }
    }

    fn arrived(&self) -> Option<Result<(), String>> {
        let presences = self.presences();
        let up = presences.iter().filter(|presence| presence.is_up()).count();
        let all = presences.len();
        if up > 0 && (self.by_name || up == all) {
            return Some(Ok(()));
        }
        let refused =
            presences.iter().filter(|presence| matches!(presence, Presence::Refused { .. })).count();
        // Of a name, another address may be the right one.
        let lost = if self.by_name { all > 0 && refused == all } else { refused > 0 };
        lost.then(|| Err(self.reason()))
    }

    fn presences(&self) -> Vec<Presence> {
        self.member.seats().iter().map(|seat| seat.replica.presence().borrow().clone()).collect()
    }
}

impl Enrolled {
    /// Connects to the replicas at these addresses that the member does not have.
    ///
    /// # Errors
    /// An address that can't be connected to.
    pub(crate) fn prepare(&self, addresses: &[String]) -> Result<Move, InvalidAddress> {
        self.links.prepare(addresses)
    }

    /// Its replicas, as nobody has spoken with them yet.
    pub(crate) fn newcomer(&self) -> Newcomer {
        Newcomer { member: Arc::clone(&self.member), by_name: self.lookups.is_some() }
    }

    /// Its links, which may outlive it while sessions need them.
    pub(crate) fn links(&self) -> Vec<Weak<GrpcReplica>> {
        self.links.by_address().values().map(Arc::downgrade).collect()
    }

    /// Sends what is queued and ends all links.
    pub(crate) async fn disconnect(&self) {
        let links: Vec<_> = self.links.by_address().values().cloned().collect();
        join_all(links.iter().map(|link| link.disconnect())).await;
    }
}

impl Links {
    /// Makes the replicas at these addresses the member's.
    fn set(self: &Arc<Self>, addresses: &[String]) -> Result<(), InvalidAddress> {
        self.prepare(addresses)?.take_effect();
        Ok(())
    }

    fn prepare(self: &Arc<Self>, addresses: &[String]) -> Result<Move, InvalidAddress> {
        let known = self.by_address();
        let (mut all, mut new) = (Vec::with_capacity(addresses.len()), Vec::new());
        for address in addresses {
            let link = match known.get(address) {
                Some(link) => Arc::clone(link),
                None => {
                    let name = self.name.as_deref();
                    let link = Arc::new(self.connecting.connect(self.member.name(), address, name)?);
                    new.push(Arc::clone(&link));
                    link
                }
            };
            all.push(link);
        }
        Ok(Move { links: Arc::clone(self), all, new })
    }

    fn by_address(&self) -> MutexGuard<'_, BTreeMap<String, Arc<GrpcReplica>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as the member.
async fn look_up(links: Arc<Links>, host: String, port: u16, tls: bool) {
    let mut last = None;
    loop {
        match addresses(&*links.connecting.network, &host, port, tls).await {
            Ok(addresses) if last.as_ref() != Some(&addresses) => {
                tracing::info!(member = links.member.name(), host, ?addresses, "looked up");
                if let Err(error) = links.set(&addresses) {
                    tracing::error!(member = links.member.name(), %error, "can't connect");
                }
                last = Some(addresses);
            }
            Ok(_) => {}
            // Those that were known may well be there still.
            Err(error) => tracing::warn!(member = links.member.name(), host, %error, "can't be looked up"),
        }
        tokio::time::sleep(links.connecting.refresh).await;
    }
}

/// All addresses of a name, each once, in order.
async fn addresses(network: &dyn Network, host: &str, port: u16, tls: bool) -> io::Result<Vec<String>> {
    let mut addresses = network.look_up(host.to_owned(), port).await?;
    if tls {
        addresses.iter_mut().for_each(|address| *address = address.replacen("http:", "https:", 1));
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use chorus_text::Vocabulary;

    use super::*;
    use crate::config::Overrides;
    use crate::network::Sockets;
    use crate::testing::scripted_worker::{Manner, ScriptedWorker};

    #[tokio::test]
    async fn a_name_is_as_many_replicas_as_it_has_addresses() {
        let vocabulary = Vocabulary::train_characters("abc").unwrap();
        let worker = ScriptedWorker::start(&vocabulary, 1, Manner::Faithful);
        let flag = format!("alto=dns://localhost:{}", worker.address.port());
        let members = vec![flag.parse().unwrap()];
        let config = Config::new(None, Overrides { members, ..Overrides::default() }).unwrap();
        let connecting = Connecting::new(&config, Arc::new(Sockets::default()), &Common::of_tests(&config));
        let enrolled = connecting.enroll(&config.members[0]).unwrap();
        let up = enrolled.member.wait_until_up();
        tokio::time::timeout(Duration::from_secs(60), up).await.unwrap();
        let seats = enrolled.member.seats();
        let mine = format!("http://127.0.0.1:{}", worker.address.port());
        assert!(seats.iter().any(|seat| seat.replica.address() == mine && seat.is_up()));
        enrolled.disconnect().await;
    }

    #[tokio::test]
    async fn a_replica_that_is_left_out_ends_with_its_last_session() {
        let vocabulary = Vocabulary::train_characters("abc").unwrap();
        let workers = [1, 2].map(|_| ScriptedWorker::start(&vocabulary, 1, Manner::Faithful));
        let flag = format!("alto={},{}", workers[0].url(), workers[1].url());
        let members = vec![flag.parse().unwrap()];
        let config = Config::new(None, Overrides { members, ..Overrides::default() }).unwrap();
        let enrolled = Connecting::new(&config, Arc::new(Sockets::default()), &Common::of_tests(&config))
            .enroll(&config.members[0])
            .unwrap();
        let member = &enrolled.member;
        let both_up = async {
            while !member.seats().iter().all(|seat| seat.is_up()) {
                member.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), both_up).await.unwrap();
        let (held, dropped) = (Arc::clone(&member.seats()[0]), Arc::clone(&member.seats()[1]));
        let presences = [&held, &dropped].map(|seat| seat.replica.presence());
        enrolled.links.set(&[]).unwrap();
        drop(dropped);
        let [kept, mut gone] = presences;
        let ended = gone.wait_for(|presence| !presence.is_up());
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
        assert!(kept.borrow().is_up());
        assert!(member.choose(1, &[], Duration::ZERO).is_none(), "no new session goes there");
        drop(held);
    }
}
