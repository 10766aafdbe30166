//! The task that keeps one member's stream: connect, carry, and after a loss connect again with back-off.
//!
//! Knows nothing about what is carried.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::Line;
use super::connect::{self, ConnectError, Connection};
use crate::agreement::Delegate;
use crate::member::Presence;

/// With jitter a delay is at most twice this: a worker that was started again is back within a second.
const LONGEST_DELAY: Duration = Duration::from_millis(500);
const SHORTEST_DELAY: Duration = Duration::from_millis(25);
/// Another vocabulary does not go away by itself: somebody has to start another worker.
const REFUSED_DELAY: Duration = Duration::from_secs(5);
/// What a worker may take to end its side of the stream when the coordinator stops.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    pub(super) delegate: Delegate,
    pub(super) line: Arc<Line>,
    pub(super) shutdown: CancellationToken,
}

impl Keeper {
    /// Lives as long as the member.
    pub(super) async fn keep(self) {
        let mut delays = delays();
        loop {
            let connected = tokio::select! {
                // A member that goes away does not wait for a handshake.
                biased;
                () = self.shutdown.cancelled() => return,
                connected = connect::connect(&self.endpoint, &self.delegate) => connected,
            };
            let delay = match connected {
                Ok(connection) => {
                    delays = self::delays();
                    if self.carry(connection).await.is_none() {
                        return;
                    }
                    delays.next()
                }
                Err(error) => {
                    self.delegate.leave();
                    self.failed(&error).or_else(|| delays.next())
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(delay.unwrap_or(LONGEST_DELAY)) => {}
            }
        }
    }

    /// Carries the stream until it ends; `None` when that was because of a shutdown.
    async fn carry(&self, connection: Connection) -> Option<()> {
        let Connection { card, attachment, mut answers } = connection;
        tracing::info!(member = self.name, incarnation = card.incarnation, "connected");
        let incarnation = Arc::from(card.incarnation.as_str());
        self.line.card.send_replace(Some(card));
        self.line.set_attachment(Some(Arc::clone(&attachment)));
        self.line.presence.send_replace(Presence::Up { incarnation });
        let reason = tokio::select! {
            reason = attachment.carry(&mut answers) => Some(reason),
            () = self.shutdown.cancelled() => {
                attachment.finish();
                // What is queued goes out; then the worker ends its side.
                let _ = tokio::time::timeout(GOODBYE, attachment.carry(&mut answers)).await;
                None
            }
        };
        let ended = reason.as_deref().unwrap_or("the coordinator is shutting down");
        // Whoever is failed by what follows finds the reason.
        self.line.presence.send_replace(Presence::Down { reason: ended.to_owned() });
        self.line.set_attachment(None);
        self.delegate.leave();
        attachment.end(ended);
        if reason.is_some() {
            tracing::warn!(member = self.name, reason = ended, "lost");
        }
        reason.map(|_| ())
    }

    /// Publishes why there is no stream, and how long to wait where that is not for the back-off to say.
    fn failed(&self, error: &ConnectError) -> Option<Duration> {
        let reason = error.to_string();
        let refused = matches!(error, ConnectError::Disagreement(_));
        let changed = self.line.presence.send_if_modified(|presence| {
            let next = match presence {
                _ if refused => Presence::Refused { reason },
                Presence::Connecting { .. } => Presence::Connecting { reason },
                _ => Presence::Down { reason },
            };
            let changed = *presence != next;
            *presence = next;
            changed
        });
        if changed {
            tracing::warn!(member = self.name, reason = %error, "not connected");
        }
        refused.then_some(REFUSED_DELAY)
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(SHORTEST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
}
