//! Credit: what a stream may have under way, from the arrival of an operation until its answer is handed to the
//! connection. A stream that does not read its answers runs out of credit and is not read from; others don't notice.

use std::sync::Arc;

use chorus_proto::MAX_MESSAGE_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::operation::{Operation, OperationLimits};

/// Bytes that one unit of credit stands for.
const UNIT_BYTES: usize = 1024;
/// A stream's credit in units: two of the largest messages, so that one can travel while the next is computed.
const STREAM_UNITS: u32 = (2 * MAX_MESSAGE_BYTES / UNIT_BYTES) as u32;

/// The share of a stream's credit that one operation holds; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    _permit: Option<OwnedSemaphorePermit>,
}

/// All the credit of one stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamCredit {
    semaphore: Arc<Semaphore>,
}

impl StreamCredit {
    pub(crate) fn new() -> Self {
        Self { semaphore: Arc::new(Semaphore::new(STREAM_UNITS as usize)) }
    }

    /// Takes `units` if they are there.
    pub(crate) fn try_take(&self, units: u32) -> Option<Credit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_many_owned(units).ok()?;
        Some(Credit { _permit: Some(permit) })
    }

    /// Waits for `units`.
    pub(crate) async fn take(&self, units: u32) -> Credit {
        // The semaphore is never closed, so there is always a permit.
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(units).await.ok();
        Credit { _permit: permit }
    }

    /// Waits until every operation has been answered and its answer handed over.
    pub(crate) async fn all_returned(&self) {
        drop(self.take(STREAM_UNITS).await);
    }
}

/// Units for an operation: its tokens and the answer that it will produce.
pub(crate) fn units(operation: &Operation, limits: &OperationLimits) -> u32 {
    let bytes = match operation {
        Operation::Open(_) | Operation::Close { .. } => 0,
        Operation::Feed(feed) => {
            let tokens = feed.tokens.len();
            let snapshot = if feed.snapshot { limits.state_bytes } else { 0 };
            4 * tokens + feed.ask.answer_bytes(tokens, limits.vocabulary_size) + snapshot
        }
    };
    u32::try_from(1 + bytes / UNIT_BYTES).map_or(STREAM_UNITS, |units| units.min(STREAM_UNITS))
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::RowFormat;

    use super::*;
    use crate::operation::{Ask, Feed, Origin, Rows};

    fn limits(vocabulary_size: usize) -> OperationLimits {
        OperationLimits {
            vocabulary_size,
            state_bytes: 8 * UNIT_BYTES,
            max_feed_tokens: 8192,
            max_answer_rows: 64,
        }
    }

    #[test]
    fn credit_comes_back_when_it_is_dropped() {
        let stream = StreamCredit::new();
        let most = stream.try_take(STREAM_UNITS - 1).unwrap();
        let one = stream.try_take(1).unwrap();
        assert!(stream.try_take(1).is_none());
        drop(one);
        assert!(stream.try_take(1).is_some());
        drop(most);
        assert!(stream.try_take(STREAM_UNITS).is_some());
    }

    #[test]
    fn an_operation_never_costs_more_than_a_stream_has() {
        let ask = |rows, format| Ask::Logits { rows, format };
        let feed = Feed::new(1, vec![0; 8192], ask(Rows::Each, RowFormat::F32));
        assert_eq!(units(&Operation::Feed(feed), &limits(100_000)), STREAM_UNITS);
        assert_eq!(units(&Operation::Open(Origin::Start), &limits(100_000)), 1);
        for (ask, bytes) in [
            (ask(Rows::Next, RowFormat::F32), 4),
            (ask(Rows::Next, RowFormat::F16), 2),
            (Ask::Top { rows: Rows::Next, k: 1024, log_threshold: None }, 9),
            (Ask::Ids((0..1024).collect()), 4),
        ] {
            let feed = Feed::new(1, vec![0; 1], ask);
            assert_eq!(units(&Operation::Feed(feed.clone()), &limits(1024)), 1 + bytes);
            let feed = Feed { snapshot: true, ..feed };
            assert_eq!(
                units(&Operation::Feed(feed), &limits(1024)),
                1 + bytes + 8,
                "a snapshot has its size"
            );
        }
    }
}
