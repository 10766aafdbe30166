//! What a null worker answers to every ask of the protocol. Knows nothing about streams or sessions: an answer follows
//! from the feed alone, so that a repeated step has the same one.

use chorus_proto::{
    put_values,
    v1::{
        Advanced, Answer, AskIds, AskTop, Drawn, ErrorCode, Failure, Feed, IdLogits, Logits, Norms,
        Operation, RowFormat, Rows, Targets, TopTokens, answer, feed, operation,
    },
};
use chorus_simd::Norm;

use super::logits::{NullLogits, NullRow};

/// The answer of a member to an operation; none to what has none.
pub(super) fn answer(logits: &NullLogits, member: usize, operation: &Operation) -> Option<Answer> {
    let Some(operation::Operation::Feed(feed)) = &operation.operation else {
        return None;
    };
    let last = || logits.row(member, feed.tokens.last().copied());
    let answer = match &feed.ask {
        Some(feed::Ask::Nothing(_)) => answer::Answer::Advanced(Advanced {}),
        Some(feed::Ask::Targets(_)) => answer::Answer::Targets(targets(logits, member, feed)),
        Some(feed::Ask::Logits(ask)) => match ask.rows() {
            Rows::Next => answer::Answer::Logits(whole(std::iter::once(last()), ask.format())),
            Rows::Each => {
                answer::Answer::Logits(whole(rows_before(logits, member, &feed.tokens), ask.format()))
            }
            Rows::Unspecified => unreadable("which rows are asked for is not said"),
        },
        Some(feed::Ask::Top(ask)) => match ask.rows() {
            Rows::Next => answer::Answer::Top(top(std::iter::once((last(), None)), ask)),
            Rows::Each => {
                let rows = rows_before(logits, member, &feed.tokens);
                answer::Answer::Top(top(rows.zip(feed.tokens.iter().copied().map(Some)), ask))
            }
            Rows::Unspecified => unreadable("which rows are asked for is not said"),
        },
        Some(feed::Ask::Ids(ask)) => answer::Answer::Ids(ids(last(), ask)),
        Some(feed::Ask::Draw(ask)) => {
            let row = last();
            let id = chorus_simd::draw(&row.logits, row.norm, ask.uniform);
            answer::Answer::Drawn(Drawn { id: u32::try_from(id).unwrap_or_default() })
        }
        None => unreadable("nothing that is known is asked"),
    };
    Some(Answer { session: operation.session, step: feed.step, answer: Some(answer) })
}

fn unreadable(message: &str) -> answer::Answer {
    let code = ErrorCode::InvalidArgument.into();
    answer::Answer::Failure(Failure { code, message: message.to_owned() })
}

/// Whole rows. A single one in f32 copies nothing: all answers share its bytes.
fn whole<'a>(rows: impl Iterator<Item = &'a NullRow>, format: RowFormat) -> Logits {
    let (mut norms, mut shared, mut values) = (Norms::default(), None, Vec::new());
    for (index, row) in rows.enumerate() {
        match format {
            RowFormat::F32 => {
                push(&mut norms, row.norm);
                // The first row's bytes are copied only where a second follows.
                if let Some(first) = shared.take() {
                    let first: bytes::Bytes = first;
                    values.extend_from_slice(&first);
                }
                if index == 0 {
                    shared = Some(row.bytes.clone());
                } else {
                    values.extend_from_slice(&row.bytes);
                }
            }
            RowFormat::F16 | RowFormat::Bf16 => {
                let (bytes, norm) = row.rounded(format);
                push(&mut norms, norm);
                values.extend_from_slice(&bytes);
            }
        }
    }
    Logits { values: shared.unwrap_or_else(|| values.into()), norms: Some(norms) }
}

fn top<'a>(rows: impl Iterator<Item = (&'a NullRow, Option<u32>)>, ask: &AskTop) -> TopTokens {
    let (mut answer, mut norms) = (TopTokens::default(), Norms::default());
    let (mut logits, mut target_logits) = (Vec::new(), Vec::new());
    for (row, target) in rows {
        let tokens = row.top(ask.k as usize, ask.log_threshold);
        put_values(&mut logits, tokens.iter().map(|token| row.logit(*token)), RowFormat::F32);
        answer.counts.push(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        answer.ids.extend(tokens);
        put_values(&mut target_logits, target.map(|token| row.logit(token)).into_iter(), RowFormat::F32);
        push(&mut norms, row.norm);
    }
    TopTokens { logits: logits.into(), target_logits: target_logits.into(), norms: Some(norms), ..answer }
}

fn ids(row: &NullRow, ask: &AskIds) -> IdLogits {
    let (mut logits, mut norms) = (Vec::new(), Norms::default());
    put_values(&mut logits, ask.ids.iter().map(|token| row.logit(*token)), RowFormat::F32);
    push(&mut norms, row.norm);
    IdLogits { logits: logits.into(), norms: Some(norms) }
}

fn push(norms: &mut Norms, norm: Norm) {
    norms.push(norm.largest, norm.log_sum);
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
    use chorus_proto::v1;

    use super::*;

    const V: u32 = 50;

    fn asked(ask: Option<feed::Ask>) -> answer::Answer {
        let feed = Feed { step: 3, tokens: vec![5, 6, 49], ask };
        let operation = Operation { session: 9, operation: Some(operation::Operation::Feed(feed)) };
        let answer = answer(&NullLogits::new(V), 2, &operation).unwrap();
        assert_eq!((answer.session, answer.step), (9, 3));
        answer.answer.unwrap()
    }

    fn rows(rows: Rows, format: RowFormat) -> answer::Answer {
        asked(Some(feed::Ask::Logits(v1::AskLogits { rows: rows.into(), format: format.into() })))
    }

    fn values(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn every_ask_has_its_answer_and_they_agree() {
        let nothing = asked(Some(feed::Ask::Nothing(v1::AskNothing {})));
        assert_eq!(nothing, answer::Answer::Advanced(Advanced {}));
        let answer::Answer::Logits(each) = rows(Rows::Each, RowFormat::F32) else { panic!("rows") };
        let (rows_each, norms) = (values(&each.values), each.norms.unwrap());
        assert_eq!(rows_each.len(), 3 * V as usize);
        let answer::Answer::Targets(targets) = asked(Some(feed::Ask::Targets(v1::AskTargets {}))) else {
            panic!("targets")
        };
        for (index, (token, (largest, log_sum))) in [5, 6, 49].into_iter().zip(norms.iter()).enumerate() {
            let logit = rows_each[index * V as usize + token];
            let log_prob = f64::from(logit) - f64::from(largest) - log_sum;
            assert!((log_prob - targets.log_probs[index]).abs() < 1e-12);
        }
        let answer::Answer::Logits(next) = rows(Rows::Next, RowFormat::F32) else { panic!("a row") };
        let next = values(&next.values);
        assert_eq!(next, NullLogits::new(V).row(2, Some(49)).logits);

        let ask = |rows: Rows| AskTop { rows: rows.into(), k: 3, log_threshold: Some(-2.0) };
        let answer::Answer::Top(top) = asked(Some(feed::Ask::Top(ask(Rows::Next)))) else { panic!("a top") };
        assert!(top.counts[0] >= 3 && top.ids.is_sorted() && top.target_logits.is_empty());
        let likeliest = next.iter().copied().fold(f32::MIN, f32::max);
        assert!(values(&top.logits).contains(&likeliest));
        for (id, logit) in top.ids.iter().zip(values(&top.logits)) {
            assert_eq!(logit, next[*id as usize]);
        }
        let answer::Answer::Top(top) = asked(Some(feed::Ask::Top(ask(Rows::Each)))) else { panic!("tops") };
        assert_eq!((top.counts.len(), top.target_logits.len()), (3, 12));
        let answer::Answer::Ids(ids) = asked(Some(feed::Ask::Ids(AskIds { ids: vec![1, 48] }))) else {
            panic!("ids")
        };
        assert_eq!(values(&ids.logits), [next[1], next[48]]);
        let draw = v1::AskDraw { uniform: 0.0 };
        assert_eq!(asked(Some(feed::Ask::Draw(draw))), answer::Answer::Drawn(Drawn { id: 0 }));
        for format in [RowFormat::F16, RowFormat::Bf16] {
            let answer::Answer::Logits(half) = rows(Rows::Each, format) else { panic!("rows") };
            assert_eq!(half.values.len(), 3 * 2 * V as usize);
        }
    }

    #[test]
    fn what_can_t_be_read_is_said_and_what_has_no_answer_gets_none() {
        for unknown in [asked(None), rows(Rows::Unspecified, RowFormat::F32)] {
            assert!(matches!(unknown, answer::Answer::Failure(_)), "{unknown:?}");
        }
        let open = Operation { session: 1, operation: Some(operation::Operation::Open(v1::Open {})) };
        assert_eq!(answer(&NullLogits::new(V), 0, &open), None);
    }
}
