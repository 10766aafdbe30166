//! The outgoing half of a stream: a frame is whatever is queued when the transport is ready to write.
//!
//! Knows nothing about what the operations mean. There is no timer: an idle stream sends one operation at once, a busy
//! one shares a frame's cost among many.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use chorus_proto::v1::{Operation, OperationFrame};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Operations in one frame at most: with feeds of a few thousand tokens still far below the message limit.
const MAX_OPERATIONS: usize = 1024;

/// An operation on its way out; its room in the queue is free again when it is written.
pub(super) struct QueuedOperation {
    pub(super) operation: Operation,
    pub(super) _room: OwnedSemaphorePermit,
}

/// The frames of one stream. Ends when every sender of the queue is gone and the queue is empty.
pub(super) struct OperationFrames {
    queue: mpsc::UnboundedReceiver<QueuedOperation>,
}

impl OperationFrames {
    pub(super) fn new(queue: mpsc::UnboundedReceiver<QueuedOperation>) -> Self {
        Self { queue }
    }
}

impl Stream for OperationFrames {
    type Item = OperationFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<OperationFrame>> {
        let mut queued = Vec::new();
        let count = ready!(self.queue.poll_recv_many(context, &mut queued, MAX_OPERATIONS));
        if count == 0 {
            return Poll::Ready(None);
        }
        let operations = queued.into_iter().map(|queued| queued.operation).collect();
        Poll::Ready(Some(OperationFrame { operations }))
    }
}
