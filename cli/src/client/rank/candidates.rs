//! Candidates as they are written down: a line each, or lists of them as JSON, a list a line.
//!
//! Knows nothing about what they are compared by.

use anyhow::{Context as _, anyhow, bail};
use chorus_proto::v1::{Input, RankCandidate, TokenIds, input};
use serde::Deserialize;
use serde_json::Value;

use crate::client::input_of;

/// What a list looks like.
const FORM: &str = "{\"context\": TEXT, \"candidates\": [TEXT or {\"text\", \"tokens\", \"score\"}, ...]}";

/// What continues one context.
#[derive(Debug, Default, PartialEq)]
pub(super) struct List {
    /// Nothing where the candidates are texts from the beginning.
    pub(super) context: Option<String>,
    /// At least one.
    pub(super) candidates: Vec<Candidate>,
}

/// One of a list: a text, or tokens, or tokens and the text that stands for them where they are shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    /// Absent where only tokens were given.
    pub(super) text: Option<String>,
    tokens: Option<Vec<i64>>,
    score: Option<f64>,
}

/// A candidate of a JSON list that is more than a text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    text: Option<String>,
    tokens: Option<Vec<i64>>,
    score: Option<f64>,
}

/// A line of a file of lists.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    context: Option<String>,
    candidates: Vec<Value>,
}

impl Candidate {
    /// As it goes over the wire: its tokens, where it has any.
    pub(super) fn to_request(&self) -> RankCandidate {
        let continuation = match &self.tokens {
            Some(ids) => Input { input: Some(input::Input::Tokens(TokenIds { ids: ids.clone() })) },
            None => input_of(self.text.clone().unwrap_or_default()),
        };
        RankCandidate { continuation: Some(continuation), score: self.score }
    }

    /// A text by itself, or an object.
    fn of_json(value: Value) -> anyhow::Result<Self> {
        let Whole { text, tokens, score } = match value {
            Value::String(text) => Whole { text: Some(text), tokens: None, score: None },
            value => serde_path_to_error::deserialize(value).map_err(|error| {
                match error.path().to_string().as_str() {
                    "." => anyhow!("{}", error.inner()),
                    path => anyhow!("{path}: {}", error.inner()),
                }
            })?,
        };
        let is_empty = match &tokens {
            Some(tokens) => tokens.is_empty(),
            None => text.as_ref().is_none_or(String::is_empty),
        };
        if is_empty {
            bail!("it is empty; expected a text of at least one character, or at least one token");
        }
        Ok(Self { text, tokens, score })
    }
}

/// A candidate on each line, with a number before it where `scores` says so.
///
/// # Errors
/// The first line, by its number, that is none; or there is none at all.
pub(super) fn of_lines(text: &str, scores: bool) -> anyhow::Result<Vec<Candidate>> {
    let read = |line| if scores { with_score(line) } else { Ok((None, line)) };
    let candidates = text.lines().enumerate().map(|(index, line)| {
        let number = index + 1;
        let (score, candidate) = read(line).with_context(|| format!("line {number}"))?;
        if candidate.is_empty() {
            bail!("line {number} has no candidate; expected at least one character");
        }
        Ok(Candidate { text: Some(candidate.to_owned()), tokens: None, score })
    });
    let candidates: Vec<Candidate> = candidates.collect::<anyhow::Result<_>>()?;
    if candidates.is_empty() {
        bail!("there are no candidates; expected one on each line");
    }
    Ok(candidates)
}

fn with_score(line: &str) -> anyhow::Result<(Option<f64>, &str)> {
    let (score, candidate) = line.split_once('\t').context("it has no tab; expected NUMBER<TAB>CANDIDATE")?;
    let number = score.trim().parse().map_err(|_| anyhow!("it begins with {score:?}, which is no number"))?;
    Ok((Some(number), candidate))
}

/// A list on each line, as JSON.
///
/// # Errors
/// The first line, by its number, that is none; or there is none at all.
pub(super) fn of_lists(text: &str) -> anyhow::Result<Vec<List>> {
    let lists = text
        .lines()
        .enumerate()
        .map(|(index, line)| of_list(line).with_context(|| format!("line {}", index + 1)));
    let lists: Vec<List> = lists.collect::<anyhow::Result<_>>()?;
    if lists.is_empty() {
        bail!("there are no lists; expected one on each line");
    }
    Ok(lists)
}

fn of_list(line: &str) -> anyhow::Result<List> {
    let Line { context, candidates } = serde_json::from_str(line).map_err(|error| {
        // The parser knows of one line only.
        let said = error.to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
        anyhow!("column {}: {said}; expected {FORM}", error.column())
    })?;
    if candidates.is_empty() {
        bail!("candidates: there are none; expected at least one");
    }
    let candidate =
        |(index, value)| Candidate::of_json(value).with_context(|| format!("candidates[{index}]"));
    let candidates = candidates.into_iter().enumerate().map(candidate).collect::<anyhow::Result<_>>()?;
    Ok(List { context, candidates })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(text: &str, score: Option<f64>) -> Candidate {
        Candidate { text: Some(text.into()), tokens: None, score }
    }

    #[test]
    fn candidates_are_lines_as_they_are() {
        assert_eq!(of_lines(" a\nb\tc\n", false).unwrap(), [candidate(" a", None), candidate("b\tc", None)]);
        let scored = of_lines("-1.5\t a\n2\tb\tc\n", true).unwrap();
        assert_eq!(scored, [candidate(" a", Some(-1.5)), candidate("b\tc", Some(2.0))]);
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (text, scores, said) in [
            ("", false, "there are no candidates"),
            ("a\n\nb", false, "line 2 has no candidate"),
            ("1\ta\nb", true, "line 2: it has no tab"),
            ("1\ta\nx\tb", true, "line 2: it begins with \"x\", which is no number"),
            ("1\t", true, "line 1 has no candidate"),
        ] {
            let error = format!("{:#}", of_lines(text, scores).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn lists_have_texts_and_tokens_with_and_without_scores() {
        let text = concat!(
            r#"{"context": "the cat\t", "candidates": ["le chat\n", {"text": "le chien", "tokens": [3, 4], "score": -2}]}"#,
            "\n",
            r#"{"candidates": [{"tokens": [7]}]}"#,
        );
        let lists = of_lists(text).unwrap();
        assert_eq!(lists[0].context.as_deref(), Some("the cat\t"));
        assert_eq!(lists[0].candidates[0], candidate("le chat\n", None));
        let tokens = Candidate { text: Some("le chien".into()), tokens: Some(vec![3, 4]), score: Some(-2.0) };
        assert_eq!(lists[0].candidates[1], tokens);
        let sent = tokens.to_request().continuation.unwrap().input.unwrap();
        assert_eq!(sent, input::Input::Tokens(TokenIds { ids: vec![3, 4] }), "tokens are what is scored");
        assert_eq!((lists[1].context.as_deref(), lists[1].candidates.len()), (None, 1));
    }

    #[test]
    fn lists_that_are_none_are_named() {
        for (line, said) in [
            ("", "there are no lists"),
            ("le chat", "line 1: column 1: expected value; expected {\"context\": TEXT"),
            (r#"{"candidates": []}"#, "line 1: candidates: there are none"),
            (r#"{"candidates": ["a", ""]}"#, "line 1: candidates[1]: it is empty"),
            (r#"{"candidates": ["a", {"score": 1}]}"#, "line 1: candidates[1]: it is empty"),
            (r#"{"candidates": [{"text": "a", "tokens": []}]}"#, "candidates[0]: it is empty"),
            (r#"{"candidates": [{"text": "a", "scores": 1}]}"#, "candidates[0]: scores: unknown field"),
            (
                r#"{"candidates": [{"text": "a", "score": "-1"}]}"#,
                "candidates[0]: score: invalid type: string",
            ),
            (r#"{"candidates": [{"text": "a", "tokens": [1.5]}]}"#, "candidates[0]: tokens[0]: invalid type"),
            (r#"{"candidates": [7]}"#, "candidates[0]: invalid type: integer `7`"),
            (r#"{"candidates": [{"text": "a", "score": 1e400}]}"#, "number out of range"),
            (r#"{"contexts": "a", "candidates": ["a"]}"#, "unknown field `contexts`"),
            ("{\"candidates\": [\"a\"]}\n{}", "missing field `candidates`"),
        ] {
            let error = format!("{:#}", of_lists(line).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
