//! Texts from the command line, a file or stdin. Knows nothing about tokens.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use chorus_proto::v1::{Input, input};

/// The argument that stands for stdin.
const STDIN: &str = "-";

/// A prompt: the argument itself, or stdin where it is `-`. Taken as it is, a line end at its end included.
///
/// # Errors
/// Stdin can't be read or is not UTF-8.
pub(super) fn prompt(argument: &str) -> anyhow::Result<Input> {
    if argument == STDIN {
        return read_stdin().map(text);
    }
    Ok(text(argument.to_owned()))
}

/// The text of a file, or of stdin where the path is `-`.
///
/// # Errors
/// It can't be read or is not UTF-8.
pub(super) fn file(path: &Path) -> anyhow::Result<Input> {
    if path.as_os_str() == STDIN {
        return read_stdin().map(text);
    }
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    utf8(bytes, &path.display().to_string()).map(text)
}

fn text(text: String) -> Input {
    Input { input: Some(input::Input::Text(text)) }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("can't read stdin")?;
    utf8(bytes, "stdin")
}

fn utf8(bytes: Vec<u8>, origin: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow!("{origin} is not UTF-8 text: the byte at offset {offset} can't be read")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let error = utf8(b"abc\xff".to_vec(), "notes.txt").unwrap_err();
        assert_eq!(error.to_string(), "notes.txt is not UTF-8 text: the byte at offset 3 can't be read");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = file(Path::new("surely/not/here.txt")).unwrap_err();
        assert_eq!(error.to_string(), "can't read surely/not/here.txt");
    }
}
