//! Asks and answers between the coordinator's words and the wire's. An answer is checked against its question.
//!
//! Knows nothing about streams or about who waits.

use chorus_proto::v1::{self, ErrorCode, ask_logits::Rows as RowsAsked, feed};
use chorus_proto::{logits_to_values, shortened, v1::answer::Answer as Kind};

use crate::fusion::{RowError, check_targets};
use crate::member::{Answer, Feed, MemberError};
use crate::plan::Ask;
use crate::rows::Rows;

/// Answers of more bytes are checked on a thread where that holds up nobody.
const LARGE_ANSWER: usize = 1 << 18;

/// Of what a worker says about a failure, in characters: it goes into every answer that is given without it.
pub(super) const LONGEST_REASON: usize = 300;

/// What an answer must look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    ask: Ask,
    tokens: usize,
    vocabulary_size: usize,
}

/// A feed as the protocol has it.
pub(super) fn wire_feed(feed: Feed) -> v1::Feed {
    let rows = |rows: RowsAsked| feed::Ask::Logits(v1::AskLogits { rows: rows.into() });
    let ask = match feed.ask {
        Ask::Nothing => feed::Ask::Nothing(v1::AskNothing {}),
        Ask::LogitsNext => rows(RowsAsked::Next),
        Ask::LogitsEach => rows(RowsAsked::Each),
        Ask::Targets => feed::Ask::Targets(v1::AskTargets {}),
    };
    v1::Feed { step: feed.step, tokens: feed.tokens, ask: Some(ask) }
}

impl Question {
    pub(super) fn of(feed: &Feed, vocabulary_size: u32) -> Self {
        Self { ask: feed.ask, tokens: feed.tokens.len(), vocabulary_size: vocabulary_size as usize }
    }

    /// Reads and checks the answer to this question.
    pub(super) async fn read(self, answer: v1::Answer) -> Result<Answer, MemberError> {
        match answer.answer {
            Some(Kind::Failure(failure)) => Err(failed(&failure)),
            Some(Kind::Logits(logits)) if logits.values.len() > LARGE_ANSWER => {
                tokio::task::spawn_blocking(move || self.rows(&logits))
                    .await
                    .unwrap_or_else(|_| Err(violation("its rows could not be read")))
            }
            Some(Kind::Logits(logits)) => self.rows(&logits),
            Some(Kind::Targets(targets)) if self.ask == Ask::Targets => {
                check_targets(&targets.log_probs, self.tokens).map_err(unsound)?;
                // Rounding must not make a probability larger than 1.
                Ok(Answer::Targets(targets.log_probs.into_iter().map(|log_prob| log_prob.min(0.0)).collect()))
            }
            Some(Kind::Advanced(_)) if self.ask == Ask::Nothing => Ok(Answer::Advanced),
            _ => Err(violation("it answered something else than what was asked")),
        }
    }

    fn rows(self, logits: &v1::Logits) -> Result<Answer, MemberError> {
        let rows = match self.ask {
            Ask::LogitsNext => 1,
            Ask::LogitsEach => self.tokens,
            Ask::Nothing | Ask::Targets => return Err(violation("it answered rows that were not asked for")),
        };
        let values = logits_to_values(logits, rows, self.vocabulary_size)
            .map_err(|error| violation(&error.to_string()))?;
        Rows::new(values, &logits.log_sum_exp, self.vocabulary_size).map(Answer::Rows).map_err(unsound)
    }
}

fn violation(violation: &str) -> MemberError {
    MemberError::Protocol { violation: violation.to_owned() }
}

/// Numbers that are not finite come from the model; anything else that is wrong comes from the program around it.
fn unsound(error: RowError) -> MemberError {
    let finite = match error {
        RowError::Length { .. } => true,
        RowError::Logit { value, .. } | RowError::LogSumExp { value, .. } => value.is_finite(),
        RowError::LogProb { value, .. } => value.is_finite(),
    };
    if finite { violation(&error.to_string()) } else { MemberError::NotFinite { what: error.to_string() } }
}

fn failed(failure: &v1::Failure) -> MemberError {
    let message = shortened(&failure.message, LONGEST_REASON);
    match failure.code() {
        ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition => MemberError::Refused { message },
        ErrorCode::UnknownSession => MemberError::UnknownSession,
        ErrorCode::ResourceExhausted => MemberError::Exhausted { message },
        ErrorCode::NotFinite => MemberError::NotFinite { what: message },
        // A session that got out of step is opened again like one that was lost.
        ErrorCode::StepOutOfOrder
        | ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Cancelled
        | ErrorCode::Internal
        | ErrorCode::Unspecified => MemberError::Lost { reason: message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(ask: Ask) -> Question {
        Question { ask, tokens: 2, vocabulary_size: 3 }
    }

    async fn read(ask: Ask, answer: Kind) -> Result<Answer, MemberError> {
        let answer = v1::Answer { session: 1, step: 1, answer: Some(answer) };
        question(ask).read(answer).await
    }

    fn logits(values: &[f32], log_sum_exp: Vec<f32>) -> Kind {
        Kind::Logits(chorus_proto::logits_from_rows(values, log_sum_exp))
    }

    #[tokio::test]
    async fn a_sound_answer_comes_through_to_the_bit() {
        let lse = 3_f32.ln();
        let answer = read(Ask::LogitsEach, logits(&[0.0; 6], vec![lse; 2])).await.unwrap();
        assert_eq!(answer, Answer::Rows(Rows::new(vec![0.0; 6], &[lse; 2], 3).unwrap()));
        let targets = Kind::Targets(v1::Targets { log_probs: vec![1e-9, -2.5] });
        assert_eq!(read(Ask::Targets, targets).await.unwrap(), Answer::Targets(vec![0.0, -2.5]));
        assert_eq!(read(Ask::Nothing, Kind::Advanced(v1::Advanced {})).await.unwrap(), Answer::Advanced);
    }

    #[tokio::test]
    async fn what_was_not_asked_for_breaks_the_protocol() {
        let short = logits(&[0.0; 5], vec![1.0, 1.0]);
        let unasked = logits(&[0.0; 3], vec![3_f32.ln()]);
        let impossible = logits(&[0.0; 3], vec![17.0]);
        let understated = logits(&[0.0; 3], vec![0.5]);
        let too_many = Kind::Targets(v1::Targets { log_probs: vec![-1.0; 3] });
        let answers = [
            (Ask::LogitsEach, short),
            (Ask::Targets, unasked),
            (Ask::LogitsNext, impossible),
            (Ask::LogitsNext, understated),
            (Ask::Targets, too_many),
            (Ask::LogitsNext, Kind::Advanced(v1::Advanced {})),
        ];
        for (ask, answer) in answers {
            let error = read(ask, answer).await.unwrap_err();
            assert!(matches!(error, MemberError::Protocol { .. }), "{ask:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn numbers_that_are_not_finite_are_told_apart() {
        let answers = [
            (Ask::LogitsNext, logits(&[0.0, f32::NAN, 0.0], vec![1.0])),
            (Ask::LogitsNext, logits(&[0.0, f32::INFINITY, 0.0], vec![1.0])),
            (Ask::LogitsNext, logits(&[0.0, 0.0, 0.0], vec![f32::NAN])),
            (Ask::Targets, Kind::Targets(v1::Targets { log_probs: vec![-1.0, f64::NEG_INFINITY] })),
        ];
        for (ask, answer) in answers {
            let error = read(ask, answer).await.unwrap_err();
            assert!(matches!(error, MemberError::NotFinite { .. }), "{ask:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_callers_mistake_is_not_the_workers_failure() {
        let failure =
            |code: ErrorCode| Kind::Failure(v1::Failure { code: code.into(), message: "token 9".to_owned() });
        let refused = read(Ask::Nothing, failure(ErrorCode::InvalidArgument)).await.unwrap_err();
        assert!(matches!(refused, MemberError::Refused { .. }));
        let gone = read(Ask::Nothing, failure(ErrorCode::UnknownSession)).await.unwrap_err();
        assert_eq!(gone, MemberError::UnknownSession);
        let broken = read(Ask::Nothing, failure(ErrorCode::Internal)).await.unwrap_err();
        assert!(matches!(broken, MemberError::Lost { .. }));
    }

    #[tokio::test]
    async fn what_a_worker_says_of_a_failure_is_bounded() {
        let message = "no ".repeat(1_000_000);
        let failure = Kind::Failure(v1::Failure { code: ErrorCode::NotFinite.into(), message });
        let error = read(Ask::Nothing, failure).await.unwrap_err();
        assert!(error.to_string().len() < 2 * LONGEST_REASON, "{error}");
    }
}
