//! [`Member`]: one model of the ensemble, hosted by one or more replicas, which come and go.
//!
//! Knows nothing about sessions of the ensemble, about rules, or how a replica is reached.

mod choice;
mod counts;
mod hedging;
mod latencies;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use chorus_proto::v1::ModelCard;
use futures::future::{FutureExt, select_all};
use tokio::sync::watch;

use crate::plan::PlanKind;
use crate::replica::{Presence, Replica, SessionId};
use crate::traffic::TrafficCounts;

pub(crate) use counts::Counts;
pub(crate) use hedging::Hedging;

/// One model of the ensemble.
pub(crate) struct Member {
    name: String,
    seats: watch::Sender<Arc<[Arc<Seat>]>>,
    next_session: AtomicU64,
    /// How soon it answers, and whether one more replica may be asked.
    pub(crate) hedging: Hedging,
    /// What was done so that a replica's loss shows nowhere.
    pub(crate) counts: Counts,
    /// Sessions in progress that it takes part in.
    pub(crate) sessions: Arc<AtomicU32>,
}

/// One replica of a member and what is counted about it.
pub(crate) struct Seat {
    pub(crate) replica: Arc<dyn Replica>,
    /// Sessions that are open there.
    pub(crate) sessions: Arc<AtomicU32>,
}

/// One of the sessions in a count, for as long as it lives.
pub(crate) struct Counted(Arc<AtomicU32>);

impl Member {
    /// `hedge_share` is how many of its feeds may be sent twice.
    pub(crate) fn new(
        name: &str,
        replicas: impl IntoIterator<Item = Arc<dyn Replica>>,
        hedge_share: f32,
    ) -> Self {
        Self {
            name: name.to_owned(),
            seats: watch::Sender::new(replicas.into_iter().map(Seat::new).collect()),
            next_session: AtomicU64::new(1),
            hedging: Hedging::new(hedge_share),
            counts: Counts::new(name),
            sessions: Arc::default(),
        }
    }

    /// The name that the configuration gives it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The replicas that there are now.
    pub(crate) fn seats(&self) -> Arc<[Arc<Seat>]> {
        Arc::clone(&self.seats.borrow())
    }

    /// Makes these the replicas. Sessions at one that is left out stay where they are while it answers.
    pub(crate) fn set_replicas(&self, replicas: impl IntoIterator<Item = Arc<dyn Replica>>) {
        self.seats.send_modify(|seats| {
            let known = |replica: &Arc<dyn Replica>| {
                seats.iter().find(|seat| seat.replica.address() == replica.address()).cloned()
            };
            let next =
                replicas.into_iter().map(|replica| known(&replica).unwrap_or_else(|| Seat::new(replica)));
            *seats = next.collect();
        });
    }

    /// A number for one more opening of a session.
    pub(crate) fn next_session(&self) -> SessionId {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// A replica that is up for a session of this number: the one with fewer sessions of two that chance picks, and none of
    /// `except`. One that has been silent for `silence` only where there is no other.
    pub(crate) fn choose(
        &self,
        session: SessionId,
        except: &[Arc<Seat>],
        silence: Duration,
    ) -> Option<Arc<Seat>> {
        let seats = self.seats();
        let is_allowed =
            |seat: &&Arc<Seat>| seat.is_up() && !except.iter().any(|other| Arc::ptr_eq(other, seat));
        // Nearly always there is one or two.
        let mut up: Vec<&Arc<Seat>> = seats.iter().filter(is_allowed).collect();
        let is_silent = |seat: &Seat| seat.replica.silence() >= silence;
        if !up.iter().all(|seat| is_silent(seat)) {
            up.retain(|seat| !is_silent(seat));
        }
        let loads: Vec<u32> = up.iter().map(|seat| seat.sessions.load(Ordering::Relaxed)).collect();
        let chosen = choice::less_loaded_of_two(&loads, session)?;
        Some(Arc::clone(up.swap_remove(chosen)))
    }

    /// Whether it can be asked: whether a replica can.
    pub(crate) fn presence(&self) -> Presence {
        let seats = self.seats();
        let presences: Vec<(&str, Presence)> = seats
            .iter()
            .map(|seat| (seat.replica.address(), seat.replica.presence().borrow().clone()))
            .collect();
        together(&presences)
    }

    /// For how long nothing has come from any replica that is up while each is waited for; zero where one is not.
    pub(crate) fn silence(&self) -> Duration {
        let seats = self.seats();
        let up = seats.iter().filter(|seat| seat.is_up());
        up.map(|seat| seat.replica.silence()).min().unwrap_or_default()
    }

    /// Resolves when it can be asked.
    pub(crate) async fn wait_until_up(&self) {
        let is_up = |member: &Self| member.seats().iter().any(|seat| seat.is_up());
        let mut seats = self.seats.subscribe();
        loop {
            let changes = self.changes_from(&mut seats);
            if is_up(self) {
                return;
            }
            changes.await;
        }
    }

    /// Resolves when the presence of a replica changes after this call, or their set does.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.changes_from(&mut self.seats.subscribe())
    }

    fn changes_from(
        &self,
        seats: &mut watch::Receiver<Arc<[Arc<Seat>]>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let present = Arc::clone(&seats.borrow_and_update());
        let mut seats = seats.clone();
        let replicas = present.iter().map(|seat| {
            let mut presence = seat.replica.presence();
            presence.borrow_and_update();
            // A replica that is gone for good is no news to wait for again and again.
            async move {
                if presence.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            .boxed()
        });
        let set = async move {
            if seats.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let any: Vec<_> = replicas.chain([set.boxed()]).collect();
        async move {
            select_all(any).await;
        }
    }

    /// What it hosts, once a replica was reached: as one says that is up, else the last known.
    pub(crate) fn card(&self) -> Option<Arc<ModelCard>> {
        let seats = self.seats();
        let up = seats.iter().filter(|seat| seat.is_up());
        up.chain(seats.iter()).find_map(|seat| seat.replica.card())
    }

    /// What has gone over the links of its replicas.
    pub(crate) fn traffic(&self, plan: PlanKind) -> TrafficCounts {
        let seats = self.seats();
        seats
            .iter()
            .map(|seat| seat.replica.traffic(plan))
            .fold(TrafficCounts::default(), TrafficCounts::plus)
    }
}

impl Seat {
    fn new(replica: Arc<dyn Replica>) -> Arc<Self> {
        Arc::new(Self { replica, sessions: Arc::default() })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.replica.presence().borrow().is_up()
    }
}

impl Counted {
    pub(crate) fn new(sessions: &Arc<AtomicU32>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sessions))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The presence of a member whose replicas have these.
fn together(replicas: &[(&str, Presence)]) -> Presence {
    if let Some((_, up)) = replicas.iter().find(|(_, presence)| presence.is_up()) {
        return up.clone();
    }
    let reason = match replicas {
        [] => "no replica of it is known".to_owned(),
        [(_, only)] => return only.clone(),
        several => {
            let reasons =
                several.iter().map(|(address, presence)| format!("{address}: {}", presence.reason()));
            reasons.collect::<Vec<_>>().join("; ")
        }
    };
    // Whoever was up before is known to be lost; being refused matters only where it is all that there is.
    let is_any = |what: fn(&Presence) -> bool| replicas.iter().any(|(_, presence)| what(presence));
    if is_any(|presence| matches!(presence, Presence::Down { .. })) {
        Presence::Down { reason }
    } else if is_any(|presence| matches!(presence, Presence::Connecting { .. })) || replicas.is_empty() {
        Presence::Connecting { reason }
    } else {
        Presence::Refused { reason }
    }
}

#[cfg(test)]
mod tests {
    use chorus_text::Vocabulary;
    use futures::FutureExt;

    use super::*;
    use crate::testing::scripted_replica::ScriptedReplica;

    fn replicas<const N: usize>() -> [Arc<ScriptedReplica>; N] {
        let vocabulary = Vocabulary::train_characters("abc").unwrap();
        std::array::from_fn(|index| ScriptedReplica::new(&format!("replica-{index}"), 1, &vocabulary))
    }

    const PATIENCE: Duration = Duration::from_millis(200);

    fn member(replicas: &[Arc<ScriptedReplica>]) -> Member {
        Member::new("alto", replicas.iter().cloned().map(|replica| replica as Arc<dyn Replica>), 0.0)
    }

    #[test]
    fn sessions_are_spread_over_those_that_are_up() {
        let replicas = replicas::<3>();
        let member = member(&replicas);
        assert!(member.choose(1, &[], PATIENCE).is_none());
        replicas[0].start();
        replicas[2].start();
        let mut counted = Vec::new();
        for _ in 0..100 {
            let seat = member.choose(member.next_session(), &[], PATIENCE).unwrap();
            counted.push(Counted::new(&seat.sessions));
        }
        let sessions: Vec<u32> =
            member.seats().iter().map(|seat| seat.sessions.load(Ordering::Relaxed)).collect();
        assert_eq!(sessions, [50, 0, 50]);
        let first = member.seats()[0].clone();
        let other = member.choose(1, std::slice::from_ref(&first), PATIENCE).unwrap();
        assert_eq!(other.replica.address(), "replica-2");
        replicas[0].is_silent_for(PATIENCE);
        assert!(
            (0..20)
                .all(|chance| member.choose(chance, &[], PATIENCE).unwrap().replica.address() != "replica-0")
        );
        assert!(member.choose(1, &[other], PATIENCE).is_some(), "better than nobody");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_member_hears_of_any_replica_old_or_new() {
        let [first, second, third] = replicas::<3>();
        let member = member(&[first.clone(), second]);
        let mut up = Box::pin(member.wait_until_up());
        assert!(up.as_mut().now_or_never().is_none());
        member.set_replicas([first.clone() as Arc<dyn Replica>, third.clone()]);
        assert!(up.as_mut().now_or_never().is_none());
        third.start();
        tokio::time::timeout(Duration::from_secs(60), up).await.unwrap();
        assert!(member.presence().is_up());

        let changed = member.changed();
        third.die();
        changed.await;
        assert_eq!(
            member.presence(),
            Presence::Down { reason: "replica-0: not reached yet; replica-2: killed".to_owned() }
        );
    }

    #[test]
    fn a_replica_that_stays_keeps_its_count() {
        let replicas = replicas::<2>();
        let member = member(&replicas[..1]);
        let seat = member.seats()[0].clone();
        let _session = Counted::new(&seat.sessions);
        member.set_replicas(replicas.iter().cloned().map(|replica| replica as Arc<dyn Replica>));
        let sessions: Vec<u32> =
            member.seats().iter().map(|seat| seat.sessions.load(Ordering::Relaxed)).collect();
        assert_eq!(sessions, [1, 0]);
    }
}
