//! The gRPC member: one long-lived stream to a worker that carries all sessions, kept alive by one task.
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
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chorus_proto::v1::{Close, ModelCard, Open, operation};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agreement::VocabularyAgreement;
use crate::member::{Answer, Feed, Member, MemberError, Presence, SessionId};
use crate::plan::PlanKind;
use crate::traffic::{Traffic, TrafficCounts};

use attachment::Attachment;
use keeper::Keeper;

pub use connect::InvalidAddress;

/// A member behind the Worker service. Dropping it ends its task and its stream.
pub(crate) struct GrpcMember {
    name: String,
    address: String,
    line: Arc<Line>,
    shutdown: CancellationToken,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the member and the task that keeps its stream share.
struct Line {
    presence: watch::Sender<Presence>,
    card: watch::Sender<Option<Arc<ModelCard>>>,
    /// The stream in use; absent while there is none. Held for the length of a clone only.
    attachment: Mutex<Option<Arc<Attachment>>>,
    /// What has gone over all streams.
    traffic: Arc<Traffic>,
}

impl GrpcMember {
    /// Starts to connect to `address` (`http://host:port`) and keeps at it until the member is dropped or
    /// [`GrpcMember::disconnect`] is called. Members are made in the order of the configuration: it decides who defines
    /// the vocabulary. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is no URI that a connection can be made to.
    pub(crate) fn connect(
        name: &str,
        address: &str,
        connect_timeout: Duration,
        agreement: &Arc<VocabularyAgreement>,
    ) -> Result<Self, InvalidAddress> {
        let endpoint = connect::endpoint(address, connect_timeout)?;
        let line = Arc::new(Line::new(name, address));
        let shutdown = CancellationToken::new();
        let keeper = Keeper {
            name: name.to_owned(),
            endpoint,
            delegate: agreement.join(name),
            line: Arc::clone(&line),
            shutdown: shutdown.clone(),
        };
        Ok(Self {
            name: name.to_owned(),
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
            tracing::error!(member = self.name, %error, "the link's task failed");
        }
    }
}

impl Drop for GrpcMember {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Member for GrpcMember {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn presence(&self) -> watch::Receiver<Presence> {
        self.line.presence.subscribe()
    }

    fn card(&self) -> Option<Arc<ModelCard>> {
        self.line.card.borrow().clone()
    }

    fn open(&self, session: SessionId) {
        if let Some(attachment) = self.line.attachment() {
            attachment.send(session, operation::Operation::Open(Open::default()));
        }
    }

    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answer, MemberError>> {
        let line = Arc::clone(&self.line);
        async move {
            match line.attachment() {
                Some(attachment) => attachment.feed(feed).await,
                None => Err(line.lost()),
            }
        }
        .boxed()
    }

    fn late(&self) {
        if let Some(attachment) = self.line.attachment() {
            attachment.late();
        }
    }

    fn discredit(&self) {
        if let Some(attachment) = self.line.attachment() {
            attachment.discredit();
        }
    }

    fn traffic(&self, plan: PlanKind) -> TrafficCounts {
        self.line.traffic.counts(plan)
    }

    fn close(&self, session: SessionId) {
        if let Some(attachment) = self.line.attachment() {
            attachment.send(session, operation::Operation::Close(Close { discard: true }));
        }
    }
}

impl Line {
    fn new(name: &str, address: &str) -> Self {
        let reason = format!("not reached yet at {address}");
        Self {
            presence: watch::Sender::new(Presence::Connecting { reason }),
            card: watch::Sender::new(None),
            attachment: Mutex::new(None),
            traffic: Arc::new(Traffic::new(name)),
        }
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_attachment(&self, attachment: Option<Arc<Attachment>>) {
        *self.attachment.lock().unwrap_or_else(PoisonError::into_inner) = attachment;
    }

    fn lost(&self) -> MemberError {
        let reason = self.presence.borrow().reason().to_owned();
        MemberError::Lost { reason }
    }
}
