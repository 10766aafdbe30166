//! [`DenseBudget`]: how many bytes of rows of whole inputs may be under way on a link, over all sessions.
//!
//! Knows nothing about members or links. Rows of one token at a time are outside of it: they never wait here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plan::Ask;

/// For all sessions together, of each member's answers, in KiB. A worker may have three times as much under way, so that
/// answers to single tokens have room beside these; and this process holds not much more of them, however many ask (answers
/// to those who gave up come on top, until they are there).
const BUDGET: u32 = 16 * 1024;

/// Bytes of rows that may be under way. Clones are the same budget.
#[derive(Clone)]
pub(crate) struct DenseBudget {
    kibibytes: Arc<Semaphore>,
}

/// A share of it, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct DenseShare {
    _permit: OwnedSemaphorePermit,
}

impl Default for DenseBudget {
    fn default() -> Self {
        Self { kibibytes: Arc::new(Semaphore::new(BUDGET as usize)) }
    }
}

impl DenseBudget {
    /// Waits for room for what each member answers to this ask about so many tokens, in the order of asking; nothing where
    /// the answer is no more than a row, or a number a token. An answer that is larger than the whole budget has it for itself.
    pub(crate) async fn reserve(
        &self,
        ask: &Ask,
        tokens: usize,
        vocabulary_size: usize,
    ) -> Option<DenseShare> {
        if !ask.is_about_each() || *ask == Ask::Targets {
            return None;
        }
        let bytes = ask.answer_bytes(tokens, vocabulary_size);
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(BUDGET);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.kibibytes).acquire_many_owned(kibibytes).await.ok()?;
        Some(DenseShare { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::RowFormat;
    use futures::FutureExt;

    use super::*;
    use crate::plan::Plan;

    #[tokio::test]
    async fn rows_of_whole_inputs_wait_for_each_other_and_nothing_else_waits() {
        let budget = DenseBudget::default();
        let each = Plan::reference().each();
        let half = || budget.reserve(&each, 8 * 1024, 256);
        let (one, _two) = (half().await.unwrap(), half().await.unwrap());
        let mut third = Box::pin(half());
        assert!(third.as_mut().now_or_never().is_none(), "there is no room");
        for ask in [Ask::Nothing, Ask::next_row(RowFormat::F32), Ask::Targets, Ask::Draw { uniform: 0.0 }] {
            assert!(budget.reserve(&ask, 1 << 20, 1 << 20).now_or_never().unwrap().is_none());
        }
        drop(one);
        let third = third.await.unwrap();
        drop((third, _two));
        let all = budget.reserve(&each, usize::MAX, usize::MAX).await;
        assert!(all.is_some(), "what is larger than the budget is not kept waiting for ever");
        assert_eq!(budget.kibibytes.available_permits(), 0);
    }
}
