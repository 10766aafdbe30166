//! The outgoing half of a stream: a frame is whatever is queued when the transport is ready to write.
//!
//! Knows nothing about what the operations mean. There is no timer: an idle stream sends one operation at once, a busy
//! one shares a frame's cost among many.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use chorus_proto::MAX_OPERATION_FRAME_BYTES;
use chorus_proto::v1::{Operation, OperationFrame};
use futures::Stream;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Operations in one frame at most.
const MAX_OPERATIONS: usize = 1024;
/// Tag and length of one operation in a frame, at most.
const OPERATION_FRAMING_BYTES: usize = 16;

/// An operation on its way out; its room in the queue is free again when it is written.
pub(super) struct QueuedOperation {
    operation: Operation,
    /// As it is encoded.
    pub(super) bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl QueuedOperation {
    pub(super) fn new(operation: Operation, room: OwnedSemaphorePermit) -> Self {
        Self { bytes: operation.encoded_len(), operation, _room: room }
    }
}

/// The frames of one stream. Ends when every sender of the queue is gone and the queue is empty.
pub(super) struct OperationFrames {
    queue: mpsc::UnboundedReceiver<QueuedOperation>,
    /// Taken from the queue, and not in a frame yet: what did not fit into the last one.
    ready: VecDeque<QueuedOperation>,
}

impl OperationFrames {
    pub(super) fn new(queue: mpsc::UnboundedReceiver<QueuedOperation>) -> Self {
        Self { queue, ready: VecDeque::new() }
    }
}

impl Stream for OperationFrames {
    type Item = OperationFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<OperationFrame>> {
        if self.ready.is_empty() {
            let mut queued = Vec::new();
            ready!(self.queue.poll_recv_many(context, &mut queued, MAX_OPERATIONS));
            self.ready = queued.into();
        }
        let frame = self.pack();
        Poll::Ready((!frame.operations.is_empty()).then_some(frame))
    }
}

impl OperationFrames {
    /// As many of those that are ready as a frame may hold, at least one if there is one.
    fn pack(&mut self) -> OperationFrame {
        let (mut operations, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.ready.front() {
            bytes += next.bytes + OPERATION_FRAMING_BYTES;
            if bytes > MAX_OPERATION_FRAME_BYTES && !operations.is_empty() {
                break;
            }
            operations.extend(self.ready.pop_front().map(|queued| queued.operation));
        }
        OperationFrame { operations }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chorus_proto::v1::{Feed, operation};
    use futures::StreamExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_frame_holds_what_is_queued_as_far_as_it_may() {
        let (sender, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(4096));
        let queued = |session, tokens| {
            let feed = Feed { step: 1, tokens: vec![u32::MAX; tokens], ..Feed::default() };
            let operation = Some(operation::Operation::Feed(feed));
            let room = Arc::clone(&room).try_acquire_owned().unwrap();
            QueuedOperation::new(Operation { session, operation }, room)
        };
        // Twice as many bytes as fit, then more than as many operations as fit.
        (0..50).for_each(|session| assert!(sender.send(queued(session, 8192)).is_ok()));
        (50..1200).for_each(|session| assert!(sender.send(queued(session, 1)).is_ok()));
        drop(sender);
        let frames: Vec<OperationFrame> = OperationFrames::new(queue).collect().await;
        assert!(frames.iter().all(|frame| frame.encoded_len() <= MAX_OPERATION_FRAME_BYTES));
        assert!(frames.iter().all(|frame| frame.operations.len() <= MAX_OPERATIONS));
        let sessions = frames.iter().flat_map(|frame| frame.operations.iter().map(|one| one.session));
        assert_eq!(sessions.collect::<Vec<_>>(), (0..1200).collect::<Vec<_>>(), "in order, none left out");
        // Two are full of bytes, one has the rest of the first 1024 operations, and one what came after them.
        assert_eq!(frames.len(), 4);
        assert_eq!(room.available_permits(), 4096);
    }
}
