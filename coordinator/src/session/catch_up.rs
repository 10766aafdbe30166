//! The way back of a lost member: wait until it is up, take the session up again, and read what it missed while the
//! steps go on without it.
//!
//! Knows nothing about fusion or about the steps themselves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::member_session::MemberSession;
use super::transcript::Transcript;
use crate::replica::ReplicaError;

/// A member that lacks no more tokens than this reads them with the next step and is in step again.
const JOIN_WITHIN: usize = 8;
const SHORTEST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A member on its way back into one session. Dropping it stops the way and closes what was open.
pub(super) struct CatchUp {
    arrival: oneshot::Receiver<Result<Box<MemberSession>, ReplicaError>>,
    _task: AbortOnDropHandle<()>,
}

impl CatchUp {
    /// The way of a session that is open nowhere starts after `delay`.
    pub(super) fn start(session: Box<MemberSession>, transcript: &Transcript, delay: Duration) -> Self {
        let (arrived, arrival) = oneshot::channel();
        let way = way_back(session, transcript.clone());
        let task = async move {
            tokio::time::sleep(delay).await;
            // A receiver that is gone belonged to a session that ended.
            let _ = arrived.send(way.await);
        };
        Self { arrival, _task: AbortOnDropHandle::new(tokio::spawn(task.in_current_span())) }
    }

    /// The session once it can join with the next step, or why it will not come back.
    pub(super) fn poll_arrival(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Box<MemberSession>, ReplicaError>> {
        Pin::new(&mut self.arrival).poll(context).map(|arrived| {
            arrived.unwrap_or_else(|_| {
                let reason = "its way back into the session was interrupted".to_owned();
                Err(ReplicaError::Lost { reason })
            })
        })
    }
}

/// Tries until the member has caught up or refuses the session's tokens.
async fn way_back(
    mut session: Box<MemberSession>,
    transcript: Transcript,
) -> Result<Box<MemberSession>, ReplicaError> {
    let member = Arc::clone(session.member());
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(SHORTEST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        member.wait_until_up().await;
        match catch_up(&mut session, &transcript).await {
            Ok(()) => return Ok(session),
            Err(refused @ ReplicaError::Refused { .. }) => return Err(refused),
            Err(error) => {
                tracing::debug!(member = member.name(), %error, "could not catch up; will try again");
                tokio::time::sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
            }
        }
    }
}

async fn catch_up(session: &mut MemberSession, transcript: &Transcript) -> Result<(), ReplicaError> {
    // The first feed shows whether the session could be opened, so there is always one.
    session.catch_up(transcript).await?;
    while transcript.len() - session.position() > JOIN_WITHIN {
        session.catch_up(transcript).await?;
    }
    Ok(())
}
