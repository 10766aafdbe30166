//! Texts of which every line is a sequence of its own: how lines become tokens. Knows nothing about what becomes of them.

use anyhow::{Context as _, bail};
use chorus_model::Line;
use chorus_text::Vocabulary;

use crate::text_file::Text;

/// How lines are read.
pub(crate) struct LineRules<'a> {
    /// What is learned, or scored, stands after the first of these in each line; everything, where there is none.
    pub(crate) separator: Option<&'a str>,
    /// The largest number of tokens of a line.
    pub(crate) longest: usize,
}

/// The lines of a text. Line ends (`\n` or `\r\n`) belong to no line, everything else does; lines without a token are
/// left out.
///
/// # Errors
/// The first line, by its number, that is not expressible, is too long, or has no separator at the end of a token.
pub(crate) fn lines(
    text: &Text,
    vocabulary: &Vocabulary,
    rules: &LineRules<'_>,
) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (index, line) in text.text.lines().enumerate() {
        let line = read(line, vocabulary, rules)
            .with_context(|| format!("line {} of {} can't be used", index + 1, text.origin))?;
        lines.extend((!line.tokens.is_empty()).then_some(line));
    }
    Ok(lines)
}

fn read(line: &str, vocabulary: &Vocabulary, rules: &LineRules<'_>) -> anyhow::Result<Line> {
    let tokens = vocabulary.encode(line)?;
    if tokens.len() > rules.longest {
        bail!("it has {} tokens, allowed are {}", tokens.len(), rules.longest);
    }
    let Some(separator) = rules.separator.filter(|_| !tokens.is_empty()) else {
        return Ok(Line { tokens, context: 0 });
    };
    let Some(at) = line.find(separator) else { bail!("it has no {separator:?}") };
    let context = vocabulary.encode(&line[..at + separator.len()])?;
    if !tokens.starts_with(&context) {
        bail!("{separator:?} and what follows it are not tokens of their own in this vocabulary");
    }
    Ok(Line { tokens, context: context.len() })
}

/// A separator as it is written on a command line, where `\t` is a tab.
pub(crate) fn separator(argument: &str) -> Result<String, String> {
    let text = argument.replace("\\t", "\t");
    match text.is_empty() || text.contains('\n') {
        true => Err("a text within a line is needed; \\t is a tab".to_owned()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, vocabulary: &Vocabulary, separator: Option<&str>) -> Result<Vec<Line>, String> {
        let text = Text { text: text.to_owned(), origin: "pairs.tsv".to_owned() };
        let lines = lines(&text, vocabulary, &LineRules { separator, longest: 12 });
        lines.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn line_ends_belong_to_no_line_and_empty_lines_are_left_out() {
        let characters = Vocabulary::train_characters("ab \n").unwrap();
        let tokens = |text: &str| characters.encode(text).unwrap();
        let lines = read("ab\n\n a \r\nb", &characters, None).unwrap();
        let lines: Vec<Vec<u32>> = lines.into_iter().map(|line| line.tokens).collect();
        assert_eq!(lines, [tokens("ab"), tokens(" a "), tokens("b")]);
    }

    #[test]
    fn what_stands_after_the_first_tab_is_learned() {
        // Byte-level BPE has a tab as a token of its own.
        let bytes = Vocabulary::train_bpe("the cat\tle chat\nthe cats\tles chats\n", 300).unwrap();
        let lines = read("the cat\tle chat\tb", &bytes, Some("\t")).unwrap();
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(bytes.decode(&line.tokens[..line.context]), "the cat\t");
        assert_eq!(bytes.decode(&line.tokens[line.context..]), "le chat\tb");
        // In a vocabulary of words it is white space.
        let words = Vocabulary::train_words("a fine film <good>", 10).unwrap();
        let lines = read("a fine film\t<good>\n\t<good>", &words, Some("\t")).unwrap();
        assert_eq!(lines.iter().map(|line| line.context).collect::<Vec<_>>(), [3, 0]);
    }

    #[test]
    fn lines_that_can_not_be_used_are_named() {
        let characters = Vocabulary::train_characters("ab\t\n").unwrap();
        let refusal = |text: &str| read(text, &characters, Some("\t")).unwrap_err();
        assert_eq!(refusal("a\tb\nab"), "line 2 of pairs.tsv can't be used: it has no \"\\t\"");
        assert!(refusal("a\tc").starts_with("line 1 of pairs.tsv can't be used: "));
        let long = "a\t".repeat(7);
        assert!(refusal(&long).ends_with("it has 14 tokens, allowed are 12"));
        // A token that reaches over the separator.
        let bytes = Vocabulary::train_bpe(&"a--b ".repeat(50), 300).unwrap();
        assert!(read("a--b", &bytes, Some("-")).unwrap_err().contains("not tokens of their own"));
    }

    #[test]
    fn a_separator_may_be_written_as_a_tab() {
        assert_eq!(separator("\\t").unwrap(), "\t");
        assert_eq!(separator(" => ").unwrap(), " => ");
        assert!(separator("").is_err());
    }
}
