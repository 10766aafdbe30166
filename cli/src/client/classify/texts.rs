//! Files of texts, with labels or without. Knows nothing about how texts are classified.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::labels_file::LabelsFile;
use crate::text_file::{self, LARGEST_DATA, Text};

/// A text, and the place of its label where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelledText {
    pub(super) text: String,
    pub(super) label: Option<usize>,
}

/// The texts of a file, one on each line; with labels after a tab.
///
/// # Errors
/// It can't be read, has no texts, or a line without a known label where labels are wanted.
pub(super) fn read(path: &Path, labelled: bool, labels: &LabelsFile) -> anyhow::Result<Vec<LabelledText>> {
    let Text { text, origin } = text_file::read(path, LARGEST_DATA)?;
    parse(&text, labelled, labels).context(origin)
}

fn parse(text: &str, labelled: bool, labels: &LabelsFile) -> anyhow::Result<Vec<LabelledText>> {
    let mut texts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let (text, label) = if labelled {
            let (text, column) = line
                .rsplit_once('\t')
                .with_context(|| format!("line {number} has no tab; expected TEXT<TAB>LABEL"))?;
            let label = labels.place(column).with_context(|| {
                format!("line {number} has the label {column:?}; the labels file knows {}", labels.columns())
            })?;
            (text, Some(label))
        } else {
            (line, None)
        };
        if text.is_empty() {
            bail!("line {number} has no text; expected at least one character");
        }
        texts.push(LabelledText { text: text.to_owned(), label });
    }
    if texts.is_empty() {
        bail!("there are no texts; expected one on each line");
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::super::labels_file::FileLabel;
    use super::*;

    fn labels() -> LabelsFile {
        let label = |name: &str| FileLabel { name: name.into(), template: "{text}".into(), column: None };
        LabelsFile { labels: vec![label("0"), label("1")], members: Vec::new() }
    }

    #[test]
    fn texts_have_labels_after_the_last_tab() {
        let texts = parse("a b\t1\nc\td\t0\n", true, &labels()).unwrap();
        let known: Vec<_> = texts.iter().map(|text| (text.text.as_str(), text.label)).collect();
        assert_eq!(known, [("a b", Some(1)), ("c\td", Some(0))]);
        assert_eq!(parse("a\t1", false, &labels()).unwrap()[0].text, "a\t1");
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (text, labelled, said) in [
            ("", false, "there are no texts"),
            ("a\n\n", false, "line 2 has no text"),
            ("a", true, "line 1 has no tab"),
            ("a\t2", true, "line 1 has the label \"2\"; the labels file knows 0, 1"),
            ("\t1", true, "line 1 has no text"),
        ] {
            let error = parse(text, labelled, &labels()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
