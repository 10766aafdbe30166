//! What a null worker answers to every ask of the protocol. Knows nothing about streams or sessions: an answer follows
//! from the feed alone, so that a repeated step has the same one.

use bytes::{Bytes, BytesMut};
use chorus_proto::{
    put_values,
    v1::{
        Advanced, Answer, AskIds, AskLogits, AskTop, Drawn, ErrorCode, Failure, Feed, IdLogits, Logits,
        Norms, Operation, RowFormat, Rows, Targets, TopTokens, answer, feed, operation,
    },
};

use super::logits::{NullLogits, NullRow, push};

/// The answer of a member to an operation; none to what has none.
pub(super) fn answer(logits: &NullLogits, member: usize, operation: &Operation) -> Option<Answer> {
    let Some(operation::Operation::Feed(feed)) = &operation.operation else {
        return None;
    };
    let asked = Asked { logits, member, tokens: &feed.tokens };
    let answer = asked.answer(feed).unwrap_or_else(|| {
        let code = ErrorCode::InvalidArgument.into();
        answer::Answer::Failure(Failure { code, message: "nothing that is known is asked".to_owned() })
    });
    Some(Answer { session: operation.session, step: feed.step, answer: Some(answer), snapshot: None })
}

/// A member, and the tokens that it is asked about.
struct Asked<'a> {
    logits: &'a NullLogits,
    member: usize,
    tokens: &'a [u32],
}

impl<'a> Asked<'a> {
    /// None where the question can't be read.
    fn answer(&self, feed: &Feed) -> Option<answer::Answer> {
        Some(match feed.ask.as_ref()? {
            feed::Ask::Nothing(_) => answer::Answer::Advanced(Advanced {}),
            feed::Ask::Logits(ask) => answer::Answer::Logits(self.dense(ask)?),
            feed::Ask::Targets(_) => answer::Answer::Targets(self.targets()),
            feed::Ask::Top(ask) => answer::Answer::Top(self.top(ask)?),
            feed::Ask::Ids(ask) => answer::Answer::Ids(self.ids(ask)),
            feed::Ask::Draw(ask) => answer::Answer::Drawn(Drawn { id: self.next_row().draw(ask.uniform) }),
        })
    }

    /// A single row is not copied: all answers share its bytes.
    fn dense(&self, ask: &AskLogits) -> Option<Logits> {
        let rows: Vec<&(Bytes, chorus_simd::Norm)> =
            self.rows(ask.rows())?.iter().map(|row| row.travelling(ask.format())).collect();
        let mut norms = Norms::default();
        for (_, norm) in &rows {
            push(&mut norms, *norm);
        }
        let values = match rows.as_slice() {
            [(only, _)] => only.clone(),
            rows => {
                let mut values = BytesMut::with_capacity(rows.iter().map(|(bytes, _)| bytes.len()).sum());
                rows.iter().for_each(|(bytes, _)| values.extend_from_slice(bytes));
                values.freeze()
            }
        };
        Some(Logits { values, norms: Some(norms) })
    }

    fn targets(&self) -> Targets {
        let rows = self.rows_before().zip(self.tokens);
        Targets { log_probs: rows.map(|(row, token)| row.log_prob(*token)).collect() }
    }

    fn top(&self, ask: &AskTop) -> Option<TopTokens> {
        let rows = self.rows(ask.rows())?;
        let (mut top, mut norms, mut logits) = (TopTokens::default(), Norms::default(), Vec::new());
        for row in &rows {
            let ids = row.top(ask.k as usize, ask.log_threshold);
            put_values(&mut logits, ids.iter().map(|id| row.logit(*id)), RowFormat::F32);
            top.counts.push(u32::try_from(ids.len()).unwrap_or(u32::MAX));
            top.ids.extend(ids);
            push(&mut norms, row.norm());
        }
        (top.logits, top.norms) = (logits.into(), Some(norms));
        if ask.rows() == Rows::Each {
            let targets: Vec<f32> =
                rows.iter().zip(self.tokens).map(|(row, token)| row.logit(*token)).collect();
            top.target_logits = little_endian(&targets);
        }
        Some(top)
    }

    fn ids(&self, ask: &AskIds) -> IdLogits {
        let row = self.next_row();
        let logits: Vec<f32> = ask.ids.iter().map(|id| row.logit(*id)).collect();
        let mut norms = Norms::default();
        push(&mut norms, row.norm());
        IdLogits { logits: little_endian(&logits), norms: Some(norms) }
    }

    fn rows(&self, asked: Rows) -> Option<Vec<&'a NullRow>> {
        match asked {
            Rows::Next => Some(vec![self.next_row()]),
            Rows::Each => Some(self.rows_before().collect()),
            Rows::Unspecified => None,
        }
    }

    fn next_row(&self) -> &'a NullRow {
        self.logits.row(self.member, self.tokens.last().copied())
    }

    /// For every token the row before it. What was fed earlier is not remembered: the first has that of a start.
    fn rows_before(&self) -> impl Iterator<Item = &'a NullRow> {
        let (logits, member) = (self.logits, self.member);
        let before = std::iter::once(None).chain(self.tokens.iter().copied().map(Some));
        before.zip(self.tokens).map(move |(before, _)| logits.row(member, before))
    }
}

fn little_endian(logits: &[f32]) -> Bytes {
    let mut bytes = Vec::new();
    put_values(&mut bytes, logits.iter().copied(), RowFormat::F32);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use chorus_proto::{logits_to_values, v1, values_of};

    use super::*;

    const V: u32 = 50;
    const TOKENS: [u32; 3] = [5, 6, 49];

    fn asked(ask: Option<feed::Ask>) -> answer::Answer {
        let feed = Feed { step: 3, tokens: TOKENS.into(), ask, ..Feed::default() };
        let operation = Operation { session: 9, operation: Some(operation::Operation::Feed(feed)) };
        let answer = answer(&NullLogits::new(V), 2, &operation).unwrap();
        assert_eq!((answer.session, answer.step), (9, 3));
        answer.answer.unwrap()
    }

    fn dense(rows: Rows, format: RowFormat) -> answer::Answer {
        asked(Some(feed::Ask::Logits(AskLogits { rows: rows.into(), format: format.into() })))
    }

    /// Every row of the feed, and the one after it, from dense answers.
    fn reference(rows: Rows) -> (Vec<f32>, Norms) {
        let answer::Answer::Logits(answer) = dense(rows, RowFormat::F32) else { panic!("rows") };
        let count = if rows == Rows::Each { TOKENS.len() } else { 1 };
        let values = logits_to_values(&answer, RowFormat::F32, count, V as usize).unwrap();
        (values, answer.norms.unwrap())
    }

    #[test]
    fn to_advance_and_targets_are_answered_as_the_rows_have_it() {
        let nothing = asked(Some(feed::Ask::Nothing(v1::AskNothing {})));
        assert_eq!(nothing, answer::Answer::Advanced(Advanced {}));
        let (values, norms) = reference(Rows::Each);
        let answer::Answer::Targets(targets) = asked(Some(feed::Ask::Targets(v1::AskTargets {}))) else {
            panic!("targets")
        };
        for (index, (token, (largest, log_sum))) in TOKENS.iter().zip(norms.iter()).enumerate() {
            let logit = values[index * V as usize + *token as usize];
            let log_prob = f64::from(logit) - f64::from(largest) - log_sum;
            assert!((log_prob - targets.log_probs[index]).abs() < 1e-12);
        }
    }

    #[test]
    fn the_likeliest_tokens_and_those_that_are_named_have_the_logits_of_the_rows() {
        let top = AskTop { rows: Rows::Each.into(), k: 4, log_threshold: None };
        let answer::Answer::Top(top) = asked(Some(feed::Ask::Top(top))) else { panic!("the likeliest") };
        let (values, norms) = reference(Rows::Each);
        assert_eq!((top.counts.as_slice(), top.norms), ([4; 3].as_slice(), Some(norms)));
        let logits = values_of(&top.logits, RowFormat::F32);
        for (index, (id, logit)) in top.ids.iter().zip(logits).enumerate() {
            assert_eq!(values[index / 4 * V as usize + *id as usize], logit);
        }
        let targets = values_of(&top.target_logits, RowFormat::F32);
        let expected =
            TOKENS.iter().enumerate().map(|(index, token)| values[index * V as usize + *token as usize]);
        assert_eq!(targets, expected.collect::<Vec<f32>>());

        let (values, norms) = reference(Rows::Next);
        let answer::Answer::Ids(ids) = asked(Some(feed::Ask::Ids(AskIds { ids: vec![0, 7, 49] }))) else {
            panic!("the named")
        };
        assert_eq!(values_of(&ids.logits, RowFormat::F32), [0, 7, 49].map(|id| values[id]));
        assert_eq!(ids.norms, Some(norms.clone()));
        let answer::Answer::Drawn(drawn) = asked(Some(feed::Ask::Draw(v1::AskDraw { uniform: 0.4 }))) else {
            panic!("a token")
        };
        let norm =
            norms.iter().map(|(largest, log_sum)| chorus_simd::Norm { largest, log_sum }).next().unwrap();
        assert_eq!(drawn.id as usize, chorus_simd::draw(&values, norm, 0.4));
    }

    #[test]
    fn what_can_t_be_read_is_said_and_what_has_no_answer_gets_none() {
        for unknown in [asked(None), dense(Rows::Unspecified, RowFormat::F32)] {
            assert!(matches!(unknown, answer::Answer::Failure(_)), "{unknown:?}");
        }
        let open = Operation { session: 1, operation: Some(operation::Operation::Open(v1::Open::default())) };
        assert_eq!(answer(&NullLogits::new(V), 0, &open), None);
    }
}
