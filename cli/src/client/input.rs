//! Texts from the command line, a file or stdin. Knows nothing about tokens.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};
use chorus_proto::v1::{Input, input};

/// The argument that stands for stdin.
const STDIN: &str = "-";

/// No more is read: a server's own limit is far lower, and some files never end.
const LARGEST_TEXT: u64 = 64 << 20;

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
    let origin = path.display().to_string();
    let file = File::open(path).with_context(|| format!("can't read {origin}"))?;
    read(file, &origin).map(text)
}

fn text(text: String) -> Input {
    Input { input: Some(input::Input::Text(text)) }
}

fn read_stdin() -> anyhow::Result<String> {
    read(io::stdin().lock(), "stdin")
}

fn read(from: impl Read, origin: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(LARGEST_TEXT + 1).read_to_end(&mut bytes);
    if read.with_context(|| format!("can't read {origin}"))? as u64 > LARGEST_TEXT {
        bail!("{origin} has more than {LARGEST_TEXT} bytes, the most that is sent");
    }
    utf8(bytes, origin)
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
    fn a_text_without_end_is_refused() {
        let error = read(io::repeat(b'y'), "stdin").unwrap_err();
        assert_eq!(error.to_string(), "stdin has more than 67108864 bytes, the most that is sent");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = file(Path::new("surely/not/here.txt")).unwrap_err();
        assert_eq!(error.to_string(), "can't read surely/not/here.txt");
    }
}
