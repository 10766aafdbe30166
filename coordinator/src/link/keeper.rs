//! The task that keeps one member's stream: connect, carry, and after a loss connect again with back-off.
//!
//! Knows nothing about what is carried.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Line;
use super::connect::{self, ConnectError, Connection, Route};
use super::delays::{Delays, Life};
use crate::agreement::Delegate;
use crate::network::Network;
use crate::replica::Presence;

/// What a worker may take to end its side of the stream when the coordinator stops.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) member: String,
    pub(super) network: Arc<dyn Network>,
    pub(super) route: Route,
    pub(super) delegate: Delegate,
    pub(super) line: Arc<Line>,
    pub(super) shutdown: CancellationToken,
}

impl Keeper {
    /// Lives as long as the member.
    pub(super) async fn keep(self) {
        let mut delays = Delays::new();
        loop {
            let connecting =
                connect::connect(&*self.network, &self.route, &self.delegate, &self.line.traffic);
            let connected = tokio::select! {
                // A member that goes away does not wait for a handshake.
                biased;
                () = self.shutdown.cancelled() => return,
                connected = connecting => connected,
            };
            let delay = match connected {
                Ok(connection) => {
                    let Some(life) = self.carry(connection).await else {
                        return;
                    };
                    delays.after_life(life)
                }
                Err(error) => {
                    self.delegate.leave();
                    self.failed(&error);
                    match error {
                        ConnectError::Disagreement(_) => delays.after_refusal(),
                        _ => delays.after_failure(),
                    }
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Carries the stream until it ends, and says how it went; `None` when it ended because of a shutdown.
    async fn carry(&self, connection: Connection) -> Option<Life> {
        let Connection { card, attachment, mut answers } = connection;
        tracing::info!(member = self.member, incarnation = card.incarnation, "connected");
        let incarnation = Arc::from(card.incarnation.as_str());
        self.line.card.send_replace(Some(card));
        self.line.set_attachment(Some(Arc::clone(&attachment)));
        self.line.traffic.link.connected();
        self.line.set_presence(Presence::Up { incarnation });
        let start = Instant::now();
        let loss = tokio::select! {
            biased;
            loss = attachment.carry(&mut answers, &self.line) => Some(loss),
            () = self.shutdown.cancelled() => {
                attachment.finish();
                // What is queued goes out; then the worker ends its side.
                let _ = tokio::time::timeout(GOODBYE, attachment.carry(&mut answers, &self.line)).await;
                None
            }
        };
        let ended = loss.as_ref().map_or("the coordinator is shutting down", |(_, reason)| reason.as_str());
        // Whoever is failed by what follows finds the reason.
        self.line.set_presence(Presence::Down { reason: ended.to_owned() });
        self.line.set_attachment(None);
        self.delegate.leave();
        attachment.end(ended);
        if let Some((how, _)) = &loss {
            self.line.traffic.link.lost(*how);
            tracing::warn!(member = self.member, reason = ended, "lost");
        }
        loss.map(|_| Life {
            length: start.elapsed(),
            useful: attachment.was_useful(),
            hung: attachment.is_hung(),
        })
    }

    /// Publishes why there is no stream.
    fn failed(&self, error: &ConnectError) {
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
            tracing::warn!(member = self.member, reason = %error, "not connected");
        }
    }
}
