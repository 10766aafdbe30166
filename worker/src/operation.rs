//! What a coordinator asks of a session, checked once at the wire: behind [`read`] every token is in the vocabulary and
//! every length within its limit. Knows nothing about sessions, batches or streams.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use chorus_proto::{
    MAX_MESSAGE_BYTES,
    v1::{self, RowFormat},
    value_bytes,
};

use chorus_simd::Reduction;

use crate::{failure, predictor::Want, traced::Traced};

/// A session's address: the stream that it belongs to and the number that the coordinator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) stream: u64,
    pub(crate) session: u64,
}

/// Something of each session. Whoever is connected chooses the numbers, so the hash has a secret; it is looked up a dozen times
/// a row, so it is not the standard library's.
pub(crate) type SessionMap<T> = foldhash::HashMap<SessionKey, T>;

/// A valid operation on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Open(Origin),
    Feed(Feed),
    Close { discard: bool },
}

/// Where a session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// At the model's start state.
    Start,
    /// Where this was taken.
    Snapshot(Box<v1::Snapshot>),
    /// Where this session of the same stream stands.
    Fork(u64),
}

/// Tokens to append, and what is asked about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feed {
    pub(crate) step: u64,
    pub(crate) tokens: Vec<u32>,
    pub(crate) ask: Ask,
    /// Whether the answer brings a snapshot.
    pub(crate) snapshot: bool,
    /// How long the answer is of use.
    pub(crate) timeout: Option<Duration>,
    /// Its spans, where they are recorded.
    pub(crate) traced: Traced,
}

impl Feed {
    /// Without a snapshot or a timeout.
    #[cfg(test)]
    pub(crate) fn new(step: u64, tokens: Vec<u32>, ask: Ask) -> Self {
        Self { step, tokens, ask, snapshot: false, timeout: None, traced: Traced::default() }
    }

    /// Tells whether a step that is repeated is the same step: its number, tokens and ask as 64 bits. The keys are random,
    /// so that nobody can make two feeds with the same.
    pub(crate) fn digest(&self, keys: &RandomState) -> u64 {
        keys.hash_one((self.step, &self.tokens, &self.ask))
    }
}

/// What a Feed wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// Only to advance.
    Nothing,
    /// Rows of logits.
    Logits { rows: Rows, format: RowFormat },
    /// Each token's log-probability.
    Targets,
    /// The `k` likeliest tokens of each row and all whose log-probability is above the threshold.
    Top { rows: Rows, k: usize, log_threshold: Option<Real> },
    /// The logits of these tokens in the next distribution: ascending, each once.
    Ids(Vec<u32>),
    /// The token at this place, in [0, 1), of the next distribution.
    Draw { uniform: Real },
}

/// The distributions that an ask is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rows {
    /// What follows the last token.
    Next,
    /// For each token the distribution before it.
    Each,
}

/// A finite number. Two are equal where their bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Real(u64);

/// Bytes of a token in the answer to [`Ask::Top`], at most: its id and its logit.
const TOP_TOKEN_BYTES: usize = 5 + 4;
/// Bytes of a row beside them: its norm, its count, the logit of its target.
const TOP_ROW_BYTES: usize = 12 + 5 + 4;

impl Real {
    pub(crate) fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number.to_bits()))
    }

    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Rows {
    fn count(self, tokens: usize) -> usize {
        match self {
            Self::Next => 1,
            Self::Each => tokens,
        }
    }
}

impl Ask {
    /// The distributions from which it is answered.
    pub(crate) fn want(&self) -> Want {
        match self {
            Self::Nothing => Want::Nothing,
            Self::Logits { rows, .. } | Self::Top { rows, .. } => match rows {
                Rows::Next => Want::Next,
                Rows::Each => Want::Each,
            },
            Self::Targets => Want::Each,
            Self::Ids(_) | Self::Draw { .. } => Want::Next,
        }
    }

    /// What of each distribution is in the answer.
    pub(crate) fn reduction(&self) -> Reduction<'_> {
        match self {
            Self::Nothing => Reduction::Norm,
            Self::Logits { .. } => Reduction::Row,
            Self::Targets => Reduction::Target,
            Self::Top { k, log_threshold, .. } => {
                Reduction::Top { k: *k, log_threshold: log_threshold.map(Real::get) }
            }
            Self::Ids(ids) => Reduction::Ids(ids),
            Self::Draw { uniform } => Reduction::Draw { uniform: uniform.get() },
        }
    }

    /// Bytes of the answer about so many tokens, at most, but for its framing.
    pub(crate) fn answer_bytes(&self, tokens: usize, vocabulary_size: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Logits { rows, format } => rows.count(tokens) * vocabulary_size * value_bytes(*format),
            Self::Targets => tokens * size_of::<f64>(),
            Self::Top { rows, k, log_threshold } => {
                // Fewer than 1 / p tokens have a probability above p.
                let above = log_threshold.map_or(0, |threshold| (-threshold.get()).exp().ceil() as usize);
                let tokens_of_row = (*k).max(above).min(vocabulary_size);
                rows.count(tokens) * (tokens_of_row * TOP_TOKEN_BYTES + TOP_ROW_BYTES)
            }
            Self::Ids(ids) => ids.len() * size_of::<f32>(),
            Self::Draw { .. } => size_of::<u32>(),
        }
    }
}

/// What an operation may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OperationLimits {
    pub(crate) vocabulary_size: usize,
    /// Of a session's state in a snapshot.
    pub(crate) state_bytes: usize,
    pub(crate) max_feed_tokens: usize,
    pub(crate) max_answer_rows: usize,
}

/// Checks an operation that came over the wire.
///
/// # Errors
/// The caller's mistake as an answer that can be sent back.
pub(crate) fn read(operation: v1::Operation, limits: &OperationLimits) -> Result<Operation, Box<v1::Answer>> {
    let session = operation.session;
    match operation.operation {
        Some(v1::operation::Operation::Open(v1::Open { from })) => Ok(Operation::Open(match from {
            None => Origin::Start,
            Some(v1::open::From::Snapshot(snapshot)) => Origin::Snapshot(Box::new(snapshot)),
            Some(v1::open::From::ForkOf(other)) => Origin::Fork(other),
        })),
        Some(v1::operation::Operation::Close(v1::Close { discard })) => Ok(Operation::Close { discard }),
        Some(v1::operation::Operation::Feed(feed)) => {
            let step = feed.step;
            read_feed(session, feed, limits).map(Operation::Feed).map_err(|message| {
                Box::new(failure::answer(session, step, failure::invalid_argument(message)))
            })
        }
        None => {
            let message = "operation is missing, allowed are open, feed and close";
            Err(Box::new(failure::answer(session, 0, failure::invalid_argument(message))))
        }
    }
}

fn read_feed(session: u64, feed: v1::Feed, limits: &OperationLimits) -> Result<Feed, String> {
    if feed.step == 0 {
        return Err(
            "feed.step is 0, allowed is 1 for a session's first feed, then one more each time".to_owned()
        );
    }
    let ask = read_ask(feed.ask, limits)?;
    check_length(feed.tokens.len(), &ask, limits)?;
    if let Some((place, token)) = first_outside(&feed.tokens, limits) {
        let size = limits.vocabulary_size;
        return Err(format!(
            "feed.tokens[{place}] is {token}, but the vocabulary has {size} tokens: allowed is 0 to {}",
            size.saturating_sub(1)
        ));
    }
    let timeout = feed.timeout_ms.map(|milliseconds| Duration::from_millis(milliseconds.into()));
    let traced = Traced::read(&feed.traceparent, session, feed.step, feed.tokens.len());
    Ok(Feed { step: feed.step, tokens: feed.tokens, ask, snapshot: feed.snapshot, timeout, traced })
}

fn read_ask(ask: Option<v1::feed::Ask>, limits: &OperationLimits) -> Result<Ask, String> {
    match ask {
        Some(v1::feed::Ask::Nothing(v1::AskNothing {})) => Ok(Ask::Nothing),
        Some(v1::feed::Ask::Targets(v1::AskTargets {})) => Ok(Ask::Targets),
        Some(v1::feed::Ask::Logits(v1::AskLogits { rows, format })) => {
            Ok(Ask::Logits { rows: read_rows("feed.logits.rows", rows)?, format: read_format(format)? })
        }
        Some(v1::feed::Ask::Top(top)) => read_top(top, limits),
        Some(v1::feed::Ask::Ids(v1::AskIds { ids })) => read_ids(ids, limits),
        Some(v1::feed::Ask::Draw(v1::AskDraw { uniform })) => match Real::new(uniform) {
            Some(real) if (0.0..1.0).contains(&uniform) => Ok(Ask::Draw { uniform: real }),
            _ => Err(format!("feed.draw.uniform is {uniform}, allowed is at least 0 and less than 1")),
        },
        None => {
            Err("feed.ask is missing, allowed are nothing, logits, targets, top, ids and draw".to_owned())
        }
    }
}

fn read_rows(field: &str, rows: i32) -> Result<Rows, String> {
    match v1::Rows::try_from(rows) {
        Ok(v1::Rows::Next) => Ok(Rows::Next),
        Ok(v1::Rows::Each) => Ok(Rows::Each),
        Ok(v1::Rows::Unspecified) | Err(_) => {
            Err(format!("{field} is {rows}, allowed are ROWS_NEXT (1) and ROWS_EACH (2)"))
        }
    }
}

fn read_format(format: i32) -> Result<RowFormat, String> {
    RowFormat::try_from(format).map_err(|_| {
        format!(
            "feed.logits.format is {format}, allowed are ROW_FORMAT_F32 (0), ROW_FORMAT_F16 (1) and ROW_FORMAT_BF16 (2)"
        )
    })
}

fn read_top(top: v1::AskTop, limits: &OperationLimits) -> Result<Ask, String> {
    let v1::AskTop { rows, k, log_threshold } = top;
    let rows = read_rows("feed.top.rows", rows)?;
    let largest = limits.vocabulary_size;
    if k as usize > largest {
        return Err(format!("feed.top.k is {k}, allowed is 0 to {largest}, the vocabulary's size"));
    }
    let log_threshold = match log_threshold {
        None if k == 0 => return Err("feed.top.k is 0, allowed is that with a log_threshold only".to_owned()),
        None => None,
        Some(threshold) => Some(Real::new(threshold).ok_or_else(|| {
            format!("feed.top.log_threshold is {threshold}, allowed is a finite number, or none")
        })?),
    };
    Ok(Ask::Top { rows, k: k as usize, log_threshold })
}

fn read_ids(ids: Vec<u32>, limits: &OperationLimits) -> Result<Ask, String> {
    if ids.is_empty() {
        return Err("feed.ids.ids is empty, allowed is at least one id".to_owned());
    }
    if let Some(place) = ids.windows(2).position(|pair| pair.first() >= pair.last()) {
        return Err(format!(
            "feed.ids.ids[{}] is not above the id before it, allowed are ascending ids",
            place + 1
        ));
    }
    if let Some((place, id)) = first_outside(&ids, limits) {
        let largest = limits.vocabulary_size.saturating_sub(1);
        return Err(format!("feed.ids.ids[{place}] is {id}, allowed is 0 to {largest}, the vocabulary"));
    }
    Ok(Ask::Ids(ids))
}

fn first_outside(tokens: &[u32], limits: &OperationLimits) -> Option<(usize, u32)> {
    let mut tokens = tokens.iter().copied().enumerate();
    tokens.find(|(_, token)| *token as usize >= limits.vocabulary_size)
}

fn check_length(tokens: usize, ask: &Ask, limits: &OperationLimits) -> Result<(), String> {
    if tokens > limits.max_feed_tokens {
        let most = limits.max_feed_tokens;
        return Err(format!("feed.tokens has {tokens} tokens, allowed are at most {most} in one feed"));
    }
    let most = match ask {
        Ask::Logits { rows: Rows::Each, .. } => limits.max_answer_rows,
        Ask::Top { rows: Rows::Each, .. } => {
            MAX_MESSAGE_BYTES / ask.answer_bytes(1, limits.vocabulary_size).max(1)
        }
        _ => return Ok(()),
    };
    if tokens > most {
        return Err(format!(
            "feed.tokens has {tokens} tokens, allowed are at most {most} with ROWS_EACH and this ask, \
             so that the answer fits into one message"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OperationLimits =
        OperationLimits { vocabulary_size: 10, state_bytes: 0, max_feed_tokens: 5, max_answer_rows: 3 };

    fn feed(step: u64, tokens: &[u32], ask: Option<v1::feed::Ask>) -> v1::Operation {
        let feed = v1::Feed { step, tokens: tokens.to_vec(), ask, ..v1::Feed::default() };
        v1::Operation { session: 7, operation: Some(v1::operation::Operation::Feed(feed)) }
    }

    fn logits(rows: i32) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Logits(v1::AskLogits { rows, format: 0 }))
    }

    fn format(format: i32) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Logits(v1::AskLogits { rows: 1, format }))
    }

    fn top(rows: i32, k: u32, log_threshold: Option<f64>) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Top(v1::AskTop { rows, k, log_threshold }))
    }

    fn ids(ids: &[u32]) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Ids(v1::AskIds { ids: ids.to_vec() }))
    }

    fn draw(uniform: f64) -> Option<v1::feed::Ask> {
        Some(v1::feed::Ask::Draw(v1::AskDraw { uniform }))
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
            (
                feed(4, &[1], None),
                4,
                "feed.ask is missing, allowed are nothing, logits, targets, top, ids and draw",
            ),
            (feed(4, &[1], logits(0)), 4, "feed.logits.rows is 0, allowed are ROWS_NEXT (1)"),
            (feed(4, &[1], logits(9)), 4, "feed.logits.rows is 9, allowed are ROWS_NEXT (1)"),
            (feed(4, &[1], format(3)), 4, "feed.logits.format is 3, allowed are ROW_FORMAT_F32 (0)"),
            (feed(4, &[1], top(0, 1, None)), 4, "feed.top.rows is 0, allowed are ROWS_NEXT (1)"),
            (feed(4, &[1], top(1, 11, None)), 4, "feed.top.k is 11, allowed is 0 to 10"),
            (feed(4, &[1], top(1, 0, None)), 4, "feed.top.k is 0, allowed is that with a log_threshold only"),
            (
                feed(4, &[1], top(1, 1, Some(f64::NAN))),
                4,
                "feed.top.log_threshold is NaN, allowed is a finite",
            ),
            (feed(4, &[1], top(1, 1, Some(f64::NEG_INFINITY))), 4, "feed.top.log_threshold is -inf"),
            (feed(4, &[1], ids(&[])), 4, "feed.ids.ids is empty, allowed is at least one id"),
            (feed(4, &[1], ids(&[1, 1])), 4, "feed.ids.ids[1] is not above the id before it"),
            (feed(4, &[1], ids(&[3, 1])), 4, "feed.ids.ids[1] is not above the id before it"),
            (feed(4, &[1], ids(&[3, 10])), 4, "feed.ids.ids[1] is 10, allowed is 0 to 9"),
            (feed(4, &[1], draw(1.0)), 4, "feed.draw.uniform is 1, allowed is at least 0 and less than 1"),
            (feed(4, &[1], draw(f64::NAN)), 4, "feed.draw.uniform is NaN"),
            (feed(4, &[1], draw(-0.1)), 4, "feed.draw.uniform is -0.1"),
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
        let rows = |rows| Ask::Logits { rows, format: RowFormat::F32 };
        assert_eq!(
            read(feed(1, &[0, 9, 3, 3, 3], logits(1)), &LIMITS),
            Ok(Operation::Feed(Feed::new(1, vec![0, 9, 3, 3, 3], rows(Rows::Next))))
        );
        assert_eq!(
            read(feed(2, &[1, 2, 3], logits(2)), &LIMITS),
            Ok(Operation::Feed(Feed::new(2, vec![1, 2, 3], rows(Rows::Each))))
        );
        assert_eq!(
            read(feed(3, &[], nothing()), &LIMITS),
            Ok(Operation::Feed(Feed::new(3, vec![], Ask::Nothing)))
        );
        let real = |number| Real::new(number).unwrap();
        for (ask, expected) in [
            (format(2), Ask::Logits { rows: Rows::Next, format: RowFormat::Bf16 }),
            (top(2, 10, None), Ask::Top { rows: Rows::Each, k: 10, log_threshold: None }),
            (top(1, 0, Some(-2.5)), Ask::Top { rows: Rows::Next, k: 0, log_threshold: Some(real(-2.5)) }),
            (ids(&[0, 9]), Ask::Ids(vec![0, 9])),
            (draw(0.0), Ask::Draw { uniform: real(0.0) }),
        ] {
            let expected = Feed::new(1, vec![5], expected);
            assert_eq!(read(feed(1, &[5], ask), &LIMITS), Ok(Operation::Feed(expected)));
        }
    }

    #[test]
    fn an_answer_that_would_not_fit_into_a_message_is_refused() {
        let limits = OperationLimits {
            vocabulary_size: 100_000,
            state_bytes: 0,
            max_feed_tokens: 8192,
            max_answer_rows: 64,
        };
        let all = top(2, 100_000, None);
        assert!(read(feed(1, &[0; 28], all.clone()), &limits).is_ok());
        assert!(read(feed(1, &[0; 29], all), &limits).is_err(), "nine bytes a token");
        let few = top(2, 4, Some(0.1_f64.ln()));
        assert!(read(feed(1, &[0; 8192], few), &limits).is_ok());
        // However small the threshold, no row has more tokens than there are.
        assert!(read(feed(1, &[0; 28], top(2, 0, Some(-1e6))), &limits).is_ok());
    }
}
