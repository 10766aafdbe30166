//! The replica over gRPC: one long-lived stream to a worker that carries all sessions, kept alive by one task.
//!
//! Knows nothing about the ensemble's sessions, rules or quorum; it moves operations out and answers in.

mod answer;
mod attachment;
mod connect;
mod delays;
mod frames;
mod keeper;
mod spare_rows;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chorus_proto::v1::{self, Close, ModelCard, Open, open, operation};
use futures::future::{BoxFuture, FutureExt};
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agreement::Agreement;
use crate::doubts::Doubts;
use crate::network::Network;
use crate::plan::PlanKind;
use crate::replica::{Answered, Feed, Origin, Presence, Replica, ReplicaError, SessionId};
use crate::snapshot::Snapshot;
use crate::traffic::{Traffic, TrafficCounts};

use attachment::Attachment;
use keeper::Keeper;

pub use connect::InvalidAddress;

/// A worker of a member. Dropping it ends its task and its stream.
pub(crate) struct GrpcReplica {
    /// The member's name.
    member: String,
    address: String,
    line: Arc<Line>,
    shutdown: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the replica and the task that keeps its stream share.
struct Line {
    /// The member's name.
    member: String,
    presence: watch::Sender<Presence>,
    card: watch::Sender<Option<Arc<ModelCard>>>,
    /// The stream in use; absent while there is none. Held for the length of a clone only.
    attachment: Mutex<Option<Arc<Attachment>>>,
    /// What has gone over all streams.
    traffic: Arc<Traffic>,
    /// The sessions that are open, each with where it stands if the worker has handed it over.
    sessions: Mutex<FxHashMap<SessionId, Option<Snapshot>>>,
    /// Where it is counted that the worker was found to be wrong.
    doubts: Doubts,
}

impl GrpcReplica {
    /// Starts to connect to `address` (`http://host:port` or `https://host:port`, where it proves to be `server_name`, or that
    /// host) and keeps at it until the replica is dropped or
    /// [`GrpcReplica::disconnect`] is called. Replicas are made in the order of the configuration: it decides who defines
    /// the vocabulary. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is no URI that a connection can be made to.
    pub(crate) fn connect(
        network: &Arc<dyn Network>,
        member: &str,
        address: &str,
        server_name: Option<&str>,
        connect_timeout: Duration,
        agreement: &Arc<Agreement>,
        doubts: &Doubts,
    ) -> Result<Self, InvalidAddress> {
        let route = connect::route(address, server_name, connect_timeout)?;
        let line = Arc::new(Line::new(member, address, doubts.clone()));
        let shutdown = CancellationToken::new();
        let keeper = Keeper {
            member: member.to_owned(),
            network: Arc::clone(network),
            route,
            delegate: agreement.join(member),
            line: Arc::clone(&line),
            shutdown: shutdown.clone(),
        };
        Ok(Self {
            member: member.to_owned(),
            address: address.to_owned(),
            line,
            shutdown,
            keeper: Mutex::new(Some(tokio::spawn(keeper.keep()))),
        })
    }

    /// Sends what is queued, ends the stream and waits for its task. Safe to call twice.
    pub(crate) async fn disconnect(&self) {
        self.shutdown.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(member = self.member, address = self.address, %error, "the link's task failed");
        }
    }
}

impl Drop for GrpcReplica {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Replica for GrpcReplica {
    fn address(&self) -> &str {
        &self.address
    }

    fn presence(&self) -> watch::Receiver<Presence> {
        self.line.presence.subscribe()
    }

    fn card(&self) -> Option<Arc<ModelCard>> {
        self.line.card.borrow().clone()
    }

    fn open(&self, session: SessionId, origin: Origin<'_>) {
        if let Some(attachment) = self.line.attachment() {
            self.line.sessions().insert(session, None);
            let from = match origin {
                Origin::Start => None,
                Origin::Snapshot(snapshot) => Some(open::From::Snapshot(snapshot.sealed().clone())),
                Origin::Fork(other) => Some(open::From::ForkOf(other)),
            };
            attachment.send(session, operation::Operation::Open(Open { from }));
        }
    }

    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answered, ReplicaError>> {
        let line = Arc::clone(&self.line);
        async move {
            let Some(attachment) = line.attachment() else {
                return Err(line.lost());
            };
            let answered = attachment.feed(feed).await;
            if let Err(ReplicaError::Protocol { .. } | ReplicaError::NotFinite { .. }) = answered {
                line.doubts.add();
            }
            answered
        }
        .boxed()
    }

    fn silence(&self) -> Duration {
        self.line.attachment().map_or(Duration::ZERO, |attachment| attachment.silence())
    }

    fn late(&self) {
        if let Some(attachment) = self.line.attachment() {
            attachment.late();
        }
    }

    fn discredit(&self) {
        self.line.doubts.add();
        if let Some(attachment) = self.line.attachment() {
            attachment.discredit();
        }
    }

    fn traffic(&self, plan: PlanKind) -> TrafficCounts {
        self.line.traffic.counts(plan)
    }

    fn handed_over(&self, session: SessionId) -> Option<Snapshot> {
        self.line.sessions().get_mut(&session)?.take()
    }

    fn close(&self, session: SessionId) {
        self.line.sessions().remove(&session);
        if let Some(attachment) = self.line.attachment() {
            attachment.send(session, operation::Operation::Close(Close { discard: true }));
        }
    }
}

impl Line {
    fn new(member: &str, address: &str, doubts: Doubts) -> Self {
        let reason = format!("not reached yet at {address}");
        Self {
            member: member.to_owned(),
            presence: watch::Sender::new(Presence::Connecting { reason }),
            card: watch::Sender::new(None),
            attachment: Mutex::new(None),
            traffic: Arc::new(Traffic::new(member)),
            sessions: Mutex::default(),
            doubts,
        }
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_attachment(&self, attachment: Option<Arc<Attachment>>) {
        *self.attachment.lock().unwrap_or_else(PoisonError::into_inner) = attachment;
    }

    fn sessions(&self) -> MutexGuard<'_, FxHashMap<SessionId, Option<Snapshot>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps where a session stands that the worker will not go on with. What is not open is of no interest.
    fn take_over(&self, handover: v1::Handover) {
        if let Some(place) = self.sessions().get_mut(&handover.session) {
            *place = handover.snapshot.and_then(Snapshot::read);
        }
    }

    /// The worker answers, but what it computes is of no use. The stream stays.
    fn set_unsound(&self, reason: &str) {
        tracing::warn!(member = self.member, reason, "out");
        self.doubts.add();
        self.set_presence(Presence::Down { reason: reason.to_owned() });
    }

    /// What the worker computes is of use again.
    fn set_sound(&self) {
        let incarnation = self.card.borrow().as_ref().map(|card| Arc::from(card.incarnation.as_str()));
        if let Some(incarnation) = incarnation {
            tracing::info!(member = self.member, "back");
            self.set_presence(Presence::Up { incarnation });
        }
    }

    fn set_presence(&self, presence: Presence) {
        self.traffic.link.set_up(presence.is_up());
        self.presence.send_replace(presence);
    }

    fn lost(&self) -> ReplicaError {
        let reason = self.presence.borrow().reason().to_owned();
        ReplicaError::Lost { reason }
    }
}
