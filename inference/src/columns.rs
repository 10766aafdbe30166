//! From replies of `chorus.v1` to tensors: the cells of each output, and how the cells of a batch lie in one tensor.
//!
//! Knows nothing about calls, and nothing about how tensors travel.

use bytes::Bytes;
use chorus_proto::v1::generation_end::Reason;
use chorus_proto::v1::{CompleteReply, PredictReply, ScoreReply};

use crate::error::Refusal;
use crate::input::Layout;
use crate::outputs::{Extent, Output};
use crate::pb::DataType;
use crate::tensor::{Elements, Tensor};

/// What the ensemble said about one element, by task.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answers {
    pub(crate) generation: Option<CompleteReply>,
    pub(crate) score: Option<ScoreReply>,
    pub(crate) prediction: Option<PredictReply>,
}

/// Everybody who has a row in `member_logprobs`: whoever scored any of the elements.
pub(crate) fn scorers(answers: &[Answers]) -> Vec<String> {
    let mut names = Vec::new();
    let scores = answers.iter().filter_map(|answers| answers.score.as_ref());
    for member in scores.flat_map(|score| &score.members) {
        if !names.contains(&member.name) {
            names.push(member.name.clone());
        }
    }
    names
}

/// The tensor of an output, from what was said about each element. Shorter rows of a batch are filled up: with -1 where they are
/// tokens, 0 where they are logarithms or probabilities, nothing where they are texts.
///
/// # Errors
/// An output that the rule has not.
pub(crate) fn tensor(output: Output, layout: Layout, answers: &[Answers]) -> Result<Tensor, Refusal> {
    let scorers = scorers(answers);
    let cells =
        answers.iter().map(|answers| cell(output, answers, &scorers)).collect::<Result<Vec<_>, _>>()?;
    let rows = match output.described().extent {
        Extent::Rows => scorers.len(),
        Extent::One | Extent::Many => 1,
    };
    let width = cells.iter().map(|cell| cell.len() / rows.max(1)).max().unwrap_or_default();
    let shape = match (layout, output.described().extent) {
        (Layout::Single, Extent::One) => vec![1],
        (Layout::Single, Extent::Many) => vec![width],
        (Layout::Single, Extent::Rows) => vec![rows, width],
        (Layout::Row(elements), Extent::One) => vec![elements],
        (Layout::Column(elements), Extent::One) => vec![elements, 1],
        (Layout::Row(elements) | Layout::Column(elements), Extent::Many) => vec![elements, width],
        (Layout::Row(elements) | Layout::Column(elements), Extent::Rows) => vec![elements, rows, width],
    };
    Ok(Tensor { name: output.name().to_owned(), shape, elements: joined(output, cells, rows, width) })
}

fn cell(output: Output, answers: &Answers, scorers: &[String]) -> Result<Elements, Refusal> {
    // What was not asked for can't be here: a request for an output asks for its task.
    let generation = answers.generation.as_ref();
    let score = answers.score.as_ref();
    let candidates = || answers.prediction.iter().flat_map(|prediction| &prediction.candidates);
    let tokens = || generation.iter().flat_map(|generation| &generation.tokens).copied_ids();
    let end = generation.and_then(|generation| generation.end.as_ref());
    let found = || end.iter().flat_map(|end| &end.hypotheses);
    Ok(match output {
        Output::GeneratedText => {
            texts([generation.map(|generation| generation.text.as_str()).unwrap_or_default()])
        }
        Output::GeneratedTokens => Elements::Signed(tokens().collect()),
        Output::GeneratedLength => integers([tokens().count()]),
        Output::GeneratedLogprobs => {
            let tokens = generation.iter().flat_map(|generation| &generation.tokens);
            numbers(output, tokens.map(|token| token.log_prob))?
        }
        Output::FinishReason => {
            let reason = end.map_or(Reason::Unspecified, |end| end.reason());
            texts([reason.as_str_name().to_ascii_lowercase().as_str()])
        }
        Output::UsedSeed => Elements::Unsigned(vec![end.map(|end| end.seed).unwrap_or_default()]),
        Output::BeamTexts => texts(found().map(|found| found.text.as_str())),
        Output::BeamLogprobs => Elements::Floats(found().map(|found| found.log_prob).collect()),
        Output::BeamScores => Elements::Floats(found().map(|found| found.score).collect()),
        Output::Logprobs => {
            let tokens = score.iter().flat_map(|score| &score.token_scores);
            numbers(output, tokens.map(|token| token.log_prob))?
        }
        Output::MemberLogprobs => Elements::Floats(member_rows(score, scorers)),
        Output::Perplexity => numbers(output, [score.and_then(|score| score.perplexity)].into_iter())?,
        Output::InputTokens => {
            let tokens = score.iter().flat_map(|score| &score.token_scores);
            Elements::Signed(tokens.map(|token| i64::from(token.id)).collect())
        }
        Output::InputLength => integers([score.map(|score| score.tokens as usize).unwrap_or_default()]),
        Output::NextProbs => Elements::Floats(candidates().map(|candidate| candidate.probability).collect()),
        Output::NextTokens => {
            Elements::Signed(candidates().map(|candidate| i64::from(candidate.id)).collect())
        }
        Output::NextTexts => texts(candidates().map(|candidate| candidate.text.as_str())),
    })
}

/// A row for each of `scorers`; of those who did not score this element one of NaN.
fn member_rows(score: Option<&ScoreReply>, scorers: &[String]) -> Vec<f64> {
    let Some(score) = score else { return Vec::new() };
    let mut rows = Vec::with_capacity(scorers.len() * score.token_scores.len());
    for name in scorers {
        let place = score.members.iter().position(|member| member.name == *name);
        rows.extend(score.token_scores.iter().map(|token| {
            place.and_then(|place| token.member_log_probs.get(place)).copied().unwrap_or(f64::NAN)
        }));
    }
    rows
}

/// All of them, or the sentence that the rule has none.
fn numbers(output: Output, values: impl Iterator<Item = Option<f64>>) -> Result<Elements, Refusal> {
    match values.collect::<Option<Vec<f64>>>() {
        Some(values) => Ok(Elements::Floats(values)),
        None => {
            let message = "threshold_vote has no distribution and so none of these; allowed: another rule";
            Err(Refusal::new(output.name(), message))
        }
    }
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Elements {
    Elements::Bytes(values.into_iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect())
}

fn integers(values: impl IntoIterator<Item = usize>) -> Elements {
    Elements::Signed(values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX)).collect())
}

/// Token ids as tensors have them.
trait CopiedIds {
    fn copied_ids(self) -> impl Iterator<Item = i64>;
}

impl<'a, I: Iterator<Item = &'a chorus_proto::v1::GeneratedToken>> CopiedIds for I {
    fn copied_ids(self) -> impl Iterator<Item = i64> {
        self.map(|token| i64::from(token.id))
    }
}

/// The cells of all elements, one after the other, each filled up to `rows` of `width`.
fn joined(output: Output, cells: Vec<Elements>, rows: usize, width: usize) -> Elements {
    macro_rules! filled {
        ($kind:ident, $filling:expr) => {
            Elements::$kind(fill(
                cells.into_iter().filter_map(|cell| match cell {
                    Elements::$kind(values) => Some(values),
                    _ => None,
                }),
                rows,
                width,
                &$filling,
            ))
        };
    }
    match output.described().datatype {
        DataType::TypeString => filled!(Bytes, Bytes::new()),
        DataType::TypeFp64 => filled!(Floats, 0.0),
        DataType::TypeUint64 => filled!(Unsigned, 0),
        _ => filled!(Signed, -1),
    }
}

fn fill<T: Clone>(cells: impl Iterator<Item = Vec<T>>, rows: usize, width: usize, filling: &T) -> Vec<T> {
    let mut all = Vec::new();
    for cell in cells {
        let own = cell.len() / rows.max(1);
        for row in 0..rows {
            all.extend_from_slice(&cell[row * own..(row + 1) * own]);
            all.extend(std::iter::repeat_n(filling.clone(), width - own));
        }
    }
    all
}
