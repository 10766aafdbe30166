//! Asks and answers between the coordinator's words and the wire's. An answer is checked against its question.
//!
//! Knows nothing about streams or about who waits.

use chorus_proto::v1::{self, ErrorCode, RowFormat, feed};
use chorus_proto::{native_rows, shortened, v1::answer::Answer as Kind, values_of};

use super::spare_rows::SpareRows;
use crate::fusion::{Norm, RowError, check_norm, check_targets};
use crate::plan::{Ask, Positions};
use crate::replica::{Answer, Feed, ReplicaError};
use crate::rows::Rows;
use crate::tops::{TopParts, TopShape, Tops, check_logit};

/// Rows of more bytes are checked on a thread where that holds up nobody; of fewer by whoever waits for them, never by the
/// link's own task. Checking takes 0.02 ns a logit and widening 0.2 ns, so with what memory takes this is some 100 µs.
const LARGE_ROWS: usize = 1 << 20;
/// The same for lists of likeliest tokens, of which each is checked by itself.
const LARGE_LIST: usize = 1 << 16;

/// Of what a worker says about a failure, in characters: it goes into every answer that is given without it.
pub(super) const LONGEST_REASON: usize = 300;

/// What an answer must look like.
#[derive(Debug, Clone)]
pub(super) struct Question {
    ask: Ask,
    tokens: usize,
    vocabulary_size: usize,
    spare_rows: SpareRows,
}

/// A feed as the protocol has it.
pub(super) fn wire_feed(feed: Feed) -> v1::Feed {
    let ask = match feed.ask {
        Ask::Nothing => feed::Ask::Nothing(v1::AskNothing {}),
        Ask::Logits { positions, format } => {
            feed::Ask::Logits(v1::AskLogits { rows: wire_rows(positions).into(), format: format.into() })
        }
        Ask::Targets => feed::Ask::Targets(v1::AskTargets {}),
        Ask::Top { positions, k, log_threshold } => {
            feed::Ask::Top(v1::AskTop { rows: wire_rows(positions).into(), k, log_threshold })
        }
        Ask::Ids(ids) => feed::Ask::Ids(v1::AskIds { ids: ids.to_vec() }),
        Ask::Draw { uniform } => feed::Ask::Draw(v1::AskDraw { uniform }),
    };
    // Rounded up, so that nothing is late that is not.
    let timeout = feed.timeout.as_nanos().div_ceil(1_000_000);
    v1::Feed {
        step: feed.step,
        tokens: feed.tokens,
        ask: Some(ask),
        snapshot: feed.snapshot,
        timeout_ms: Some(u32::try_from(timeout).unwrap_or(u32::MAX)),
        traceparent: feed.traceparent.unwrap_or_default(),
    }
}

fn wire_rows(positions: Positions) -> v1::Rows {
    match positions {
        Positions::Next => v1::Rows::Next,
        Positions::Each => v1::Rows::Each,
    }
}

impl Question {
    pub(super) fn of(feed: &Feed, vocabulary_size: u32, spare_rows: SpareRows) -> Self {
        let vocabulary_size = vocabulary_size as usize;
        Self { ask: feed.ask.clone(), tokens: feed.tokens.len(), vocabulary_size, spare_rows }
    }

    /// Reads and checks the answer to this question.
    pub(super) async fn read(self, answer: Option<Kind>) -> Result<Answer, ReplicaError> {
        let Some(kind) = answer else {
            return Err(violation("it answered something that this version does not know"));
        };
        let is_large = match &kind {
            Kind::Logits(logits) => logits.values.len() > LARGE_ROWS,
            Kind::Top(top) => top.logits.len() > LARGE_LIST,
            _ => false,
        };
        if !is_large {
            return self.read_here(kind);
        }
        let read = tokio::task::spawn_blocking(move || self.read_here(kind)).await;
        read.unwrap_or_else(|_| Err(violation("its rows could not be read")))
    }

    fn read_here(&self, kind: Kind) -> Result<Answer, ReplicaError> {
        match (&self.ask, kind) {
            (_, Kind::Failure(failure)) => Err(failed(&failure)),
            (Ask::Nothing, Kind::Advanced(_)) => Ok(Answer::Advanced),
            (Ask::Logits { format, .. }, Kind::Logits(logits)) => self.rows(&logits, *format),
            (Ask::Targets, Kind::Targets(targets)) => {
                check_targets(&targets.log_probs, self.tokens).map_err(unsound)?;
                // Rounding must not make a probability larger than 1.
                Ok(Answer::Targets(targets.log_probs.into_iter().map(|log_prob| log_prob.min(0.0)).collect()))
            }
            (Ask::Top { positions, k, log_threshold }, Kind::Top(top)) => {
                let shape = TopShape {
                    rows: self.ask.rows(self.tokens),
                    k: *k as usize,
                    log_threshold: *log_threshold,
                    vocabulary_size: self.vocabulary_size,
                    targets: *positions == Positions::Each,
                };
                Tops::new(top_parts(top)?, shape).map(Answer::Top).map_err(unsound)
            }
            (Ask::Ids(ids), Kind::Ids(answer)) => self.ids(ids, &answer),
            (Ask::Draw { .. }, Kind::Drawn(v1::Drawn { id })) if (id as usize) < self.vocabulary_size => {
                Ok(Answer::Drawn(id))
            }
            _ => Err(violation("it answered something else than what was asked")),
        }
    }

    fn rows(&self, logits: &v1::Logits, format: RowFormat) -> Result<Answer, ReplicaError> {
        let rows = self.ask.rows(self.tokens);
        let values =
            self.spare_rows.lend(|spare| native_rows(logits, format, rows, self.vocabulary_size, spare));
        let values = values.map_err(|error| violation(&error.to_string()))?;
        let norms = norms(logits.norms.as_ref())?;
        Rows::new(values, norms, self.vocabulary_size).map(Answer::Rows).map_err(unsound)
    }

    fn ids(&self, ids: &[u32], answer: &v1::IdLogits) -> Result<Answer, ReplicaError> {
        let (logits, norms) = (f32_values(&answer.logits)?, norms(answer.norms.as_ref())?);
        let &[norm] = norms.as_slice() else {
            return Err(violation("its logits come without their one norm"));
        };
        if logits.len() != ids.len() {
            return Err(unsound(RowError::Length { expected: ids.len(), got: logits.len() }));
        }
        check_norm(norm, self.vocabulary_size).map_err(unsound)?;
        for (id, logit) in ids.iter().zip(&logits) {
            check_logit(*id, *logit, norm).map_err(unsound)?;
        }
        Ok(Answer::Ids { logits, norm })
    }
}

fn top_parts(top: v1::TopTokens) -> Result<TopParts, ReplicaError> {
    Ok(TopParts {
        logits: f32_values(&top.logits)?,
        norms: norms(top.norms.as_ref())?,
        targets: f32_values(&top.target_logits)?,
        counts: top.counts,
        ids: top.ids,
    })
}

fn f32_values(bytes: &[u8]) -> Result<Vec<f32>, ReplicaError> {
    if bytes.len().is_multiple_of(size_of::<f32>()) {
        return Ok(values_of(bytes, RowFormat::F32));
    }
    Err(violation("its logits are not a whole number of f32"))
}

fn norms(norms: Option<&v1::Norms>) -> Result<Vec<Norm>, ReplicaError> {
    let Some(norms) = norms else {
        return Ok(Vec::new());
    };
    if norms.count().is_none() {
        return Err(violation("it answered halves of norms"));
    }
    Ok(norms.iter().map(|(largest, log_sum)| Norm { largest, log_sum }).collect())
}

fn violation(violation: &str) -> ReplicaError {
    ReplicaError::Protocol { violation: violation.to_owned() }
}

/// Numbers that are not finite come from the model; anything else that is wrong comes from the program around it.
fn unsound(error: RowError) -> ReplicaError {
    let finite = match error {
        RowError::Length { .. } | RowError::Order { .. } | RowError::Contradiction { .. } => true,
        RowError::Logit { value, .. } | RowError::Largest { value, .. } => value.is_finite(),
        RowError::LogSum { value, .. } | RowError::Mass { mass: value } | RowError::LogProb { value, .. } => {
            value.is_finite()
        }
    };
    if finite { violation(&error.to_string()) } else { ReplicaError::NotFinite { what: error.to_string() } }
}

fn failed(failure: &v1::Failure) -> ReplicaError {
    let message = match shortened(&failure.message, LONGEST_REASON) {
        // Who is missing from an answer is named with a reason.
        message if message.trim().is_empty() => {
            format!("it does not say why ({})", failure.code().as_str_name())
        }
        message => message,
    };
    match failure.code() {
        ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition => ReplicaError::Refused { message },
        ErrorCode::UnknownSession => ReplicaError::UnknownSession,
        ErrorCode::ResourceExhausted => ReplicaError::Exhausted { message },
        ErrorCode::NotFinite => ReplicaError::NotFinite { what: message },
        // A session that got out of step is opened again like one that was lost.
        ErrorCode::StepOutOfOrder
        | ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Cancelled
        | ErrorCode::Unauthenticated
        | ErrorCode::PermissionDenied
        | ErrorCode::Internal
        | ErrorCode::Unspecified => ReplicaError::Lost { reason: message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(ask: Ask) -> Question {
        Question { ask, tokens: 2, vocabulary_size: 3, spare_rows: SpareRows::default() }
    }

    async fn read(ask: Ask, answer: Kind) -> Result<Answer, ReplicaError> {
        let answer = v1::Answer { session: 1, step: 1, answer: Some(answer), snapshot: None };
        question(ask).read(answer.answer).await
    }

    fn rows(positions: Positions) -> Ask {
        Ask::Logits { positions, format: RowFormat::F32 }
    }

    fn top(positions: Positions) -> Ask {
        Ask::Top { positions, k: 1, log_threshold: None }
    }

    /// Norms of rows of three equal logits.
    fn flat(rows: usize) -> v1::Norms {
        v1::Norms { largest: vec![0.0; rows], log_sum: vec![3_f64.ln(); rows] }
    }

    fn logits(values: &[f32], norms: v1::Norms) -> Kind {
        Kind::Logits(chorus_proto::logits_from_rows(values, norms))
    }

    fn bytes(values: &[f32]) -> bytes::Bytes {
        chorus_proto::logits_from_rows(values, flat(0)).values
    }

    fn top_tokens(counts: &[u32], ids: &[u32], logits: &[f32], targets: &[f32]) -> Kind {
        Kind::Top(v1::TopTokens {
            counts: counts.to_vec(),
            ids: ids.to_vec(),
            logits: bytes(logits),
            norms: Some(flat(counts.len())),
            target_logits: bytes(targets),
        })
    }

    fn id_logits(logits: &[f32], norms: v1::Norms) -> Kind {
        Kind::Ids(v1::IdLogits { logits: bytes(logits), norms: Some(norms) })
    }

    #[tokio::test]
    async fn a_sound_answer_comes_through_to_the_bit() {
        let norm = Norm { largest: 0.0, log_sum: 3_f64.ln() };
        let answer = read(rows(Positions::Each), logits(&[0.0; 6], flat(2))).await.unwrap();
        assert_eq!(answer, Answer::Rows(Rows::of_values(&[0.0; 6], vec![norm; 2], 3).unwrap()));
        let targets = Kind::Targets(v1::Targets { log_probs: vec![1e-9, -2.5] });
        assert_eq!(read(Ask::Targets, targets).await.unwrap(), Answer::Targets(vec![0.0, -2.5]));
        assert_eq!(read(Ask::Nothing, Kind::Advanced(v1::Advanced {})).await.unwrap(), Answer::Advanced);
        let answer = top_tokens(&[1, 1], &[0, 0], &[0.0; 2], &[0.0, -1.0]);
        let Answer::Top(tops) = read(top(Positions::Each), answer).await.unwrap() else { panic!("tops") };
        assert_eq!((tops.len(), tops.row(1).unwrap().target), (2, Some(-1.0)));
        let answer = read(Ask::Ids([1, 2].into()), id_logits(&[0.0, -0.5], flat(1))).await.unwrap();
        assert_eq!(answer, Answer::Ids { logits: vec![0.0, -0.5], norm });
        let drawn = read(Ask::Draw { uniform: 0.5 }, Kind::Drawn(v1::Drawn { id: 2 })).await.unwrap();
        assert_eq!(drawn, Answer::Drawn(2));
    }

    #[tokio::test]
    async fn what_was_not_asked_for_breaks_the_protocol() {
        let halves = v1::Norms { largest: vec![], ..flat(1) };
        let torn = v1::IdLogits { logits: bytes::Bytes::from_static(&[0; 5]), norms: Some(flat(1)) };
        let too_large = v1::Norms { log_sum: vec![3.0], ..flat(1) };
        let answers = [
            (rows(Positions::Each), logits(&[0.0; 5], flat(2))),
            (rows(Positions::Each), logits(&[0.0; 6], flat(1))),
            (Ask::Targets, logits(&[0.0; 3], flat(1))),
            (rows(Positions::Next), logits(&[0.0; 3], too_large)),
            (rows(Positions::Next), logits(&[0.0; 3], halves)),
            (rows(Positions::Next), logits(&[-1.0; 3], flat(1))),
            (Ask::Targets, Kind::Targets(v1::Targets { log_probs: vec![-1.0; 3] })),
            (rows(Positions::Next), Kind::Advanced(v1::Advanced {})),
            (top(Positions::Next), top_tokens(&[1], &[3], &[0.0], &[])),
            (top(Positions::Next), top_tokens(&[1], &[0], &[0.0], &[0.0])),
            (top(Positions::Each), top_tokens(&[1, 1], &[0, 0], &[0.0; 2], &[])),
            (Ask::Ids([1].into()), id_logits(&[0.5], flat(1))),
            (Ask::Ids([1].into()), id_logits(&[0.0, 0.0], flat(1))),
            (Ask::Ids([1].into()), id_logits(&[0.0], flat(2))),
            (Ask::Ids([1].into()), Kind::Ids(torn)),
            (Ask::Draw { uniform: 0.5 }, Kind::Drawn(v1::Drawn { id: 3 })),
            (Ask::Nothing, Kind::Drawn(v1::Drawn { id: 1 })),
        ];
        for (ask, answer) in answers {
            let error = read(ask.clone(), answer).await.unwrap_err();
            assert!(matches!(error, ReplicaError::Protocol { .. }), "{ask:?}: {error:?}");
        }
        let unknown = question(Ask::Nothing).read(None).await.unwrap_err();
        assert!(matches!(unknown, ReplicaError::Protocol { .. }), "{unknown:?}");
    }

    #[tokio::test]
    async fn numbers_that_are_not_finite_are_told_apart() {
        let without_sum = v1::Norms { log_sum: vec![f64::NAN], ..flat(1) };
        let answers = [
            (rows(Positions::Next), logits(&[0.0, f32::NAN, 0.0], flat(1))),
            (rows(Positions::Next), logits(&[0.0, f32::INFINITY, 0.0], flat(1))),
            (rows(Positions::Next), logits(&[0.0, 0.0, 0.0], without_sum)),
            (Ask::Targets, Kind::Targets(v1::Targets { log_probs: vec![-1.0, f64::NEG_INFINITY] })),
            (top(Positions::Next), top_tokens(&[1], &[0], &[f32::NAN], &[])),
            (Ask::Ids([1].into()), id_logits(&[f32::NAN], flat(1))),
        ];
        for (ask, answer) in answers {
            let error = read(ask.clone(), answer).await.unwrap_err();
            assert!(matches!(error, ReplicaError::NotFinite { .. }), "{ask:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_callers_mistake_is_not_the_workers_failure() {
        let failure =
            |code: ErrorCode| Kind::Failure(v1::Failure { code: code.into(), message: "token 9".to_owned() });
        let refused = read(Ask::Nothing, failure(ErrorCode::InvalidArgument)).await.unwrap_err();
        assert!(matches!(refused, ReplicaError::Refused { .. }));
        let gone = read(Ask::Nothing, failure(ErrorCode::UnknownSession)).await.unwrap_err();
        assert_eq!(gone, ReplicaError::UnknownSession);
        let broken = read(Ask::Nothing, failure(ErrorCode::Internal)).await.unwrap_err();
        assert!(matches!(broken, ReplicaError::Lost { .. }));
    }

    #[tokio::test]
    async fn a_failure_without_a_word_has_a_reason_all_the_same() {
        for message in ["", " \n"] {
            let failure = v1::Failure { code: ErrorCode::Internal.into(), message: message.to_owned() };
            let error = read(Ask::Nothing, Kind::Failure(failure)).await.unwrap_err();
            assert_eq!(error.to_string(), "it does not say why (ERROR_CODE_INTERNAL)");
        }
    }

    #[tokio::test]
    async fn what_a_worker_says_of_a_failure_is_bounded() {
        let message = "no ".repeat(1_000_000);
        let failure = Kind::Failure(v1::Failure { code: ErrorCode::NotFinite.into(), message });
        let error = read(Ask::Nothing, failure).await.unwrap_err();
        assert!(error.to_string().len() < 2 * LONGEST_REASON, "{error}");
    }
}
