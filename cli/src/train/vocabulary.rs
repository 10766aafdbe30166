//! The vocabulary of a training run: made from the text, taken from a directory, or that of the run to resume.
//! Knows nothing about training.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chorus_model::Start;
use chorus_text::Vocabulary;

use super::args::{TokenizerKind, TrainArgs};
use crate::text_file::{self, LARGEST_DATA};

/// The vocabulary, and the name by which a resumed run recognises it.
pub(super) fn choose(args: &TrainArgs, training_text: &str) -> Result<(Vocabulary, String)> {
    match (&args.tokenizer_from, args.tokenizer) {
        (Some(directory), _) => {
            let vocabulary = read(directory)?;
            let name = vocabulary.fingerprint().to_owned();
            Ok((vocabulary, name))
        }
        // The run's own tokenizer is in its directory; making it once more would take time and prove nothing.
        (None, Some(kind)) if args.output.resume => Ok((read(&args.output.out)?, kind.to_string())),
        (None, Some(kind)) => Ok((make(kind, training_text)?, kind.to_string())),
        (None, None) => bail!("either --tokenizer or --tokenizer-from is needed"),
    }
}

/// The start that was asked for; by default the token of a line's end, where there is one.
pub(crate) fn start(asked: Option<&str>, vocabulary: &Vocabulary) -> Result<Start> {
    match asked {
        Some("zero-state") => Ok(Start::ZeroState),
        Some(token) => match token_of(token, vocabulary) {
            Some(id) => Ok(Start::Token(id)),
            None => {
                bail!(
                    "--start is {token:?}, which is no token of the vocabulary and not the text of a single one"
                )
            }
        },
        None => Ok(token_of("\n", vocabulary).map_or(Start::ZeroState, Start::Token)),
    }
}

/// The token that ends every line: the one that was asked for, or that of a line's end.
pub(super) fn end(asked: Option<&str>, vocabulary: &Vocabulary) -> Result<u32> {
    let Some(end) = token_of(asked.unwrap_or("\n"), vocabulary) else {
        match asked {
            Some(token) => bail!(
                "--end is {token:?}, which is no token of the vocabulary and not the text of a single one"
            ),
            None => bail!(
                "the vocabulary has no token of a line's end, so --end has to name the one that ends a line"
            ),
        }
    };
    Ok(end)
}

fn token_of(token: &str, vocabulary: &Vocabulary) -> Option<u32> {
    vocabulary.id_of(token).or_else(|| match vocabulary.encode(token).ok()?.as_slice() {
        [id] => Some(*id),
        _ => None,
    })
}

fn make(kind: TokenizerKind, text: &str) -> Result<Vocabulary> {
    let made = match kind {
        TokenizerKind::Characters => Vocabulary::train_characters(text),
        TokenizerKind::Words(size) => Vocabulary::train_words(text, size),
        TokenizerKind::Bpe(size) => Vocabulary::train_bpe(text, size),
    };
    made.with_context(|| format!("can't make the tokenizer {kind}"))
}

fn read(directory: &Path) -> Result<Vocabulary> {
    let path = directory.join("tokenizer.json");
    let json = text_file::read(&path, LARGEST_DATA)?.text;
    Vocabulary::from_json(json.as_bytes())
        .with_context(|| format!("{} is no usable tokenizer", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_a_line_end_where_there_is_one() {
        let lines = Vocabulary::train_characters("ab\n").unwrap();
        let newline = lines.encode("\n").unwrap()[0];
        assert_eq!(start(None, &lines).unwrap(), Start::Token(newline));
        assert_eq!(start(Some("zero-state"), &lines).unwrap(), Start::ZeroState);
        let words = Vocabulary::train_words("to be\nor not\n", 10).unwrap();
        assert_eq!(start(None, &words).unwrap(), Start::Token(words.id_of("<eos>").unwrap()));
        let bytes = Vocabulary::train_bpe("to be\n\nor not\n", 256).unwrap();
        assert!(matches!(start(None, &bytes).unwrap(), Start::Token(_)));
        let none = Vocabulary::train_characters("ab").unwrap();
        assert_eq!(start(None, &none).unwrap(), Start::ZeroState);
        assert!(start(Some("ab"), &none).is_err());
    }
}
