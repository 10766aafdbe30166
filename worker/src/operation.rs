//! What a coordinator asks of a session, checked once at the wire: behind [`read`] every token is in the vocabulary and
//! every length within its limit. Knows nothing about sessions, batches or streams.

use std::hash::{BuildHasher as _, RandomState};

use chorus_proto::v1;

use crate::{failure, predictor::Want};

/// A session's address: the stream that it belongs to and the number that the coordinator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) stream: u64,
    pub(crate) session: u64,
}

/// A valid operation on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Feed(Feed),
    Close { discard: bool },
}

/// Tokens to append, and what is asked about them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Feed {
    pub(crate) step: u64,
    pub(crate) tokens: Vec<u32>,
    pub(crate) ask: Ask,
}

impl Feed {
    /// Tells whether a step that is repeated is the same step: its number, tokens and ask as 64 bits. The keys are random,
    /// so that nobody can make two feeds with the same.
    pub(crate) fn digest(&self, keys: &RandomState) -> u64 {
        keys.hash_one(self)
    }
}

/// What a Feed wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// Only to advance.
    Nothing,
    /// One row of logits: what follows the last token.
    Next,
    /// One row of logits for each token: the distribution before it.
    Each,
    /// Each token's log-probability.
    Targets,
}

impl Ask {
    /// The distributions from which it is answered.
    pub(crate) fn want(&self) -> Want {
        match self {
            Self::Nothing => Want::Nothing,
            Self::Next => Want::Next,
            Self::Each | Self::Targets => Want::Each,
        }
    }
}

/// What an operation may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OperationLimits {
    pub(crate) vocabulary_size: usize,
    pub(crate) max_feed_tokens: usize,
    pub(crate) max_answer_rows: usize,
}

/// Checks an operation that came over the wire.
///
/// # Errors
/// The caller's mistake as an answer that can be sent back.
pub(crate) fn read(operation: v1::Operation, limits: &OperationLimits) -> Result<Operation, v1::Answer> {
    let session = operation.session;
    match operation.operation {
        Some(v1::operation::Operation::Open(v1::Open {})) => Ok(Operation::Open),
        Some(v1::operation::Operation::Close(v1::Close { discard })) => Ok(Operation::Close { discard }),
        Some(v1::operation::Operation::Feed(feed)) => {
            let step = feed.step;
            read_feed(feed, limits)
                .map(Operation::Feed)
                .map_err(|message| failure::answer(session, step, failure::invalid_argument(message)))
        }
        None => {
            let message = "operation is missing, allowed are open, feed and close";
            Err(failure::answer(session, 0, failure::invalid_argument(message)))
        }
    }
}

fn read_feed(feed: v1::Feed, limits: &OperationLimits) -> Result<Feed, String> {
    if feed.step == 0 {
        return Err(
            "feed.step is 0, allowed is 1 for a session's first feed, then one more each time".to_owned()
        );
    }
    let ask = read_ask(feed.ask.as_ref())?;
    check_length(feed.tokens.len(), ask, limits)?;
    let largest = limits.vocabulary_size.saturating_sub(1);
    if let Some(place) = feed.tokens.iter().position(|&token| token as usize > largest) {
        let token = feed.tokens.get(place).copied().unwrap_or_default();
        return Err(format!(
            "feed.tokens[{place}] is {token}, but the vocabulary has {} tokens: allowed is 0 to {largest}",
            limits.vocabulary_size
        ));
    }
    Ok(Feed { step: feed.step, tokens: feed.tokens, ask })
}

fn read_ask(ask: Option<&v1::feed::Ask>) -> Result<Ask, String> {
    match ask {
        Some(v1::feed::Ask::Nothing(v1::AskNothing {})) => Ok(Ask::Nothing),
        Some(v1::feed::Ask::Targets(v1::AskTargets {})) => Ok(Ask::Targets),
        Some(v1::feed::Ask::Logits(v1::AskLogits { rows })) => match v1::ask_logits::Rows::try_from(*rows) {
            Ok(v1::ask_logits::Rows::Next) => Ok(Ask::Next),
            Ok(v1::ask_logits::Rows::Each) => Ok(Ask::Each),
            Ok(v1::ask_logits::Rows::Unspecified) | Err(_) => {
                Err(format!("feed.logits.rows is {rows}, allowed are ROWS_NEXT (1) and ROWS_EACH (2)"))
            }
        },
        None => Err("feed.ask is missing, allowed are nothing, logits and targets".to_owned()),
    }
}

fn check_length(tokens: usize, ask: Ask, limits: &OperationLimits) -> Result<(), String> {
    if tokens > limits.max_feed_tokens {
        let most = limits.max_feed_tokens;
        return Err(format!("feed.tokens has {tokens} tokens, allowed are at most {most} in one feed"));
    }
    if ask == Ask::Each && tokens > limits.max_answer_rows {
        let most = limits.max_answer_rows;
        return Err(format!(
            "feed.tokens has {tokens} tokens, allowed are at most {most} with ROWS_EACH, \
             so that the answer fits into one message"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OperationLimits =
        OperationLimits { vocabulary_size: 10, max_feed_tokens: 5, max_answer_rows: 3 };

    fn feed(step: u64, tokens: &[u32], ask: Option<v1::feed::Ask>) -> v1::Operation {
        let feed = v1::Feed { step, tokens: tokens.to_vec(), ask };
        v1::Operation { session: 7, operation: Some(v1::operation::Operation::Feed(feed)) }
    }

    fn logits(rows: i32) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Logits(v1::AskLogits { rows }))
    }

    fn nothing() -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Nothing(v1::AskNothing {}))
    }

    #[test]
    fn every_mistake_is_an_invalid_argument_that_names_the_field_and_what_is_allowed() {
        let missing = v1::Operation { session: 7, operation: None };
        let table = [
            (missing, 0, "operation is missing, allowed are open, feed and close"),
            (feed(0, &[], nothing()), 0, "feed.step is 0, allowed is 1 for a session's first feed"),
            (feed(4, &[1], None), 4, "feed.ask is missing, allowed are nothing, logits and targets"),
            (feed(4, &[1], logits(0)), 4, "feed.logits.rows is 0, allowed are ROWS_NEXT (1)"),
            (feed(4, &[1], logits(9)), 4, "feed.logits.rows is 9, allowed are ROWS_NEXT (1)"),
            (
                feed(4, &[1, 10], nothing()),
                4,
                "feed.tokens[1] is 10, but the vocabulary has 10 tokens: allowed is 0 to 9",
            ),
            (feed(4, &[u32::MAX], nothing()), 4, "feed.tokens[0] is 4294967295"),
            (feed(4, &[1; 6], nothing()), 4, "feed.tokens has 6 tokens, allowed are at most 5"),
            (
                feed(4, &[1; 4], logits(2)),
                4,
                "feed.tokens has 4 tokens, allowed are at most 3 with ROWS_EACH",
            ),
        ];
        for (operation, step, message) in table {
            let answer = read(operation.clone(), &LIMITS).unwrap_err();
            assert_eq!((answer.session, answer.step), (7, step), "{operation:?}");
            let Some(v1::answer::Answer::Failure(failure)) = answer.answer else {
                panic!("{operation:?} must be refused with a failure");
            };
            assert_eq!(failure.code(), v1::ErrorCode::InvalidArgument, "{operation:?}");
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
    }

    #[test]
    fn what_is_allowed_is_read_as_it_is() {
        assert_eq!(
            read(feed(1, &[0, 9, 3, 3, 3], logits(1)), &LIMITS),
            Ok(Operation::Feed(Feed { step: 1, tokens: vec![0, 9, 3, 3, 3], ask: Ask::Next }))
        );
        assert_eq!(
            read(feed(2, &[1, 2, 3], logits(2)), &LIMITS),
            Ok(Operation::Feed(Feed { step: 2, tokens: vec![1, 2, 3], ask: Ask::Each }))
        );
        assert_eq!(
            read(feed(3, &[], nothing()), &LIMITS),
            Ok(Operation::Feed(Feed { step: 3, tokens: vec![], ask: Ask::Nothing }))
        );
    }
}
