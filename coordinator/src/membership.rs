//! From the configuration of a member to a member: links to its replicas, and a name looked up again and again.
//!
//! Knows nothing about sessions, rules or requests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio_util::task::AbortOnDropHandle;

use crate::agreement::Agreement;
use crate::config::{Config, Location, MemberConfig};
use crate::link::{GrpcReplica, InvalidAddress};
use crate::member::Member;
use crate::network::Network;
use crate::replica::Replica;

/// What every member's links have in common.
#[derive(Clone)]
pub(crate) struct Connecting {
    network: Arc<dyn Network>,
    agreement: Arc<Agreement>,
    connect_timeout: Duration,
    hedge_share: f32,
    refresh: Duration,
}

/// A member with the links to its replicas. Dropping it ends them once no session needs them any more.
pub(crate) struct Enrolled {
    pub(crate) member: Arc<Member>,
    links: Arc<Links>,
    _lookups: Option<AbortOnDropHandle<()>>,
}

/// The links of one member, by address.
struct Links {
    member: Arc<Member>,
    connecting: Connecting,
    by_address: Mutex<BTreeMap<String, Arc<GrpcReplica>>>,
}

impl Connecting {
    pub(crate) fn new(config: &Config, network: Arc<dyn Network>, agreement: &Arc<Agreement>) -> Self {
        Self {
            network,
            agreement: Arc::clone(agreement),
            connect_timeout: config.limits.connect_timeout(),
            hedge_share: config.resilience.hedge_share as f32,
            refresh: config.resilience.dns_refresh(),
        }
    }

    /// Starts to connect to a member's replicas. Members are enrolled in the order of the configuration. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// An address that can't be connected to; never for a configuration that was checked.
    pub(crate) fn enroll(&self, config: &MemberConfig) -> Result<Enrolled, InvalidAddress> {
        let member = Arc::new(Member::new(&config.name, [], self.hedge_share));
        let links = Arc::new(Links {
            member: Arc::clone(&member),
            connecting: self.clone(),
            by_address: Mutex::default(),
        });
        let location = config.address.location();
        let location = location.map_err(|error| InvalidAddress::new(&error.to_string()))?;
        let lookups = match location {
            Location::Fixed(addresses) => {
                links.set(&addresses)?;
                None
            }
            Location::Name { host, port } => {
                let lookups = look_up(Arc::clone(&links), host, port);
                Some(AbortOnDropHandle::new(tokio::spawn(lookups)))
            }
        };
        Ok(Enrolled { member, links, _lookups: lookups })
    }
}

impl Enrolled {
    /// Sends what is queued and ends all links.
    pub(crate) async fn disconnect(&self) {
        let links: Vec<_> = self.links.by_address().values().cloned().collect();
        join_all(links.iter().map(|link| link.disconnect())).await;
    }
}

impl Links {
    /// Makes the replicas at these addresses the member's.
    fn set(&self, addresses: &[String]) -> Result<(), InvalidAddress> {
        let mut by_address = self.by_address();
        let mut next = BTreeMap::new();
        let mut replicas: Vec<Arc<dyn Replica>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let link = match by_address.get(address) {
                Some(link) => Arc::clone(link),
                None => Arc::new(GrpcReplica::connect(
                    &self.connecting.network,
                    self.member.name(),
                    address,
                    self.connecting.connect_timeout,
                    &self.connecting.agreement,
                )?),
            };
            next.insert(address.clone(), Arc::clone(&link));
            replicas.push(link);
        }
        self.member.set_replicas(replicas);
        // A link that is not wanted any more ends with the last session on it.
        *by_address = next;
        Ok(())
    }

    fn by_address(&self) -> MutexGuard<'_, BTreeMap<String, Arc<GrpcReplica>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as the member.
async fn look_up(links: Arc<Links>, host: String, port: u16) {
    let mut last = None;
    loop {
        match addresses(&*links.connecting.network, &host, port).await {
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
async fn addresses(network: &dyn Network, host: &str, port: u16) -> io::Result<Vec<String>> {
    let mut addresses = network.look_up(host.to_owned(), port).await?;
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
        let connecting = Connecting::new(&config, Arc::new(Sockets), &Arc::default());
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
        let enrolled =
            Connecting::new(&config, Arc::new(Sockets), &Arc::default()).enroll(&config.members[0]).unwrap();
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
