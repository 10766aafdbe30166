//! What a null worker answers to every ask of the protocol. Knows nothing about streams or sessions: an answer follows
//! from the feed alone, so that a repeated step has the same one.

use bytes::BytesMut;
use chorus_proto::v1::{
    Advanced, Answer, ErrorCode, Failure, Feed, Logits, Operation, Targets, answer, ask_logits::Rows, feed,
    operation,
};

use super::logits::{NullLogits, NullRow};

/// The answer of a member to an operation; none to what has none.
pub(super) fn answer(logits: &NullLogits, member: usize, operation: &Operation) -> Option<Answer> {
    let Some(operation::Operation::Feed(feed)) = &operation.operation else {
        return None;
    };
    let answer = match &feed.ask {
        Some(feed::Ask::Nothing(_)) => answer::Answer::Advanced(Advanced {}),
        Some(feed::Ask::Targets(_)) => answer::Answer::Targets(targets(logits, member, feed)),
        Some(feed::Ask::Logits(ask)) => match ask.rows() {
            Rows::Next => answer::Answer::Logits(next(logits.row(member, feed.tokens.last().copied()))),
            Rows::Each => answer::Answer::Logits(each(logits, member, feed)),
            Rows::Unspecified => unreadable("which rows are asked for is not said"),
        },
        None => unreadable("nothing that is known is asked"),
    };
    Some(Answer { session: operation.session, step: feed.step, answer: Some(answer) })
}

fn unreadable(message: &str) -> answer::Answer {
    let code = ErrorCode::InvalidArgument.into();
    answer::Answer::Failure(Failure { code, message: message.to_owned() })
}

/// Copies nothing: all answers share the row's bytes.
fn next(row: &NullRow) -> Logits {
    Logits { values: row.bytes.clone(), log_sum_exp: vec![row.log_sum_exp] }
}

fn each(logits: &NullLogits, member: usize, feed: &Feed) -> Logits {
    let rows: Vec<&NullRow> = rows_before(logits, member, &feed.tokens).collect();
    let mut values = BytesMut::with_capacity(rows.iter().map(|row| row.bytes.len()).sum());
    for row in &rows {
        values.extend_from_slice(&row.bytes);
    }
    Logits { values: values.freeze(), log_sum_exp: rows.iter().map(|row| row.log_sum_exp).collect() }
}

fn targets(logits: &NullLogits, member: usize, feed: &Feed) -> Targets {
    let rows = rows_before(logits, member, &feed.tokens).zip(&feed.tokens);
    Targets { log_probs: rows.map(|(row, token)| row.log_prob(*token)).collect() }
}

/// For every token of a feed the row before it. What was fed earlier is not remembered: the first has that of a start.
fn rows_before<'a>(
    logits: &'a NullLogits,
    member: usize,
    tokens: &'a [u32],
) -> impl Iterator<Item = &'a NullRow> {
    let before = std::iter::once(None).chain(tokens.iter().copied().map(Some));
    before.zip(tokens).map(move |(before, _)| logits.row(member, before))
}

#[cfg(test)]
mod tests {
    use chorus_proto::{logits_to_values, v1};

    use super::*;

    const V: u32 = 50;

    fn asked(ask: Option<feed::Ask>) -> answer::Answer {
        let feed = Feed { step: 3, tokens: vec![5, 6, 49], ask };
        let operation = Operation { session: 9, operation: Some(operation::Operation::Feed(feed)) };
        let answer = answer(&NullLogits::new(V), 2, &operation).unwrap();
        assert_eq!((answer.session, answer.step), (9, 3));
        answer.answer.unwrap()
    }

    fn rows(rows: Rows) -> answer::Answer {
        asked(Some(feed::Ask::Logits(v1::AskLogits { rows: rows.into() })))
    }

    #[test]
    fn every_ask_has_its_answer_and_they_agree() {
        let nothing = asked(Some(feed::Ask::Nothing(v1::AskNothing {})));
        assert_eq!(nothing, answer::Answer::Advanced(Advanced {}));
        let answer::Answer::Logits(each) = rows(Rows::Each) else { panic!("rows") };
        let values = logits_to_values(&each, 3, V as usize).unwrap();
        let answer::Answer::Targets(targets) = asked(Some(feed::Ask::Targets(v1::AskTargets {}))) else {
            panic!("targets")
        };
        for (index, token) in [5, 6, 49].into_iter().enumerate() {
            let logit = values[index * V as usize + token];
            let log_prob = f64::from(logit) - f64::from(each.log_sum_exp[index]);
            assert!((log_prob - targets.log_probs[index]).abs() < 1e-5);
        }
        let answer::Answer::Logits(next) = rows(Rows::Next) else { panic!("a row") };
        let next = logits_to_values(&next, 1, V as usize).unwrap();
        assert_eq!(next, NullLogits::new(V).row(2, Some(49)).logits);
    }

    #[test]
    fn what_can_t_be_read_is_said_and_what_has_no_answer_gets_none() {
        for unknown in [asked(None), rows(Rows::Unspecified)] {
            assert!(matches!(unknown, answer::Answer::Failure(_)), "{unknown:?}");
        }
        let open = Operation { session: 1, operation: Some(operation::Operation::Open(v1::Open {})) };
        assert_eq!(answer(&NullLogits::new(V), 0, &open), None);
    }
}
