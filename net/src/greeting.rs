//! [`Greeting`]: what a connection has to begin with, and by when.
//!
//! Knows nothing about where bytes come from, nor about how a connection ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// The preface of a client and the head of the first frame that follows it (RFC 9113, sections 3.4 and 4.1), in bytes.
pub(crate) const LENGTH: usize = 24 + 9;

/// What a connection has to begin in.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The beginning of an HTTP/2 session, as far as it has come.
///
/// A server's pings begin after it, so they can't tell that a peer is gone which never came so far: its last packet was lost,
/// or it wants to hold the connection and nothing else.
#[derive(Debug)]
pub(crate) struct Greeting {
    missing: usize,
    /// Until all of it is there.
    too_late: Option<Pin<Box<Sleep>>>,
}

impl Greeting {
    /// Of a connection that is new.
    pub(crate) fn new() -> Self {
        Self { missing: LENGTH, too_late: Some(Box::pin(sleep(PATIENCE))) }
    }

    /// Takes in that so many bytes have come.
    pub(crate) fn heard(&mut self, bytes: usize) {
        self.missing = self.missing.saturating_sub(bytes);
        if self.missing == 0 {
            self.too_late = None;
        }
    }

    /// Resolves when it is late; never once all of it is there.
    pub(crate) fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.too_late.as_mut().map_or(Poll::Pending, |too_late| too_late.as_mut().poll(context))
    }
}
