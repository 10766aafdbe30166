//! UTF-8 texts from files and stdin, each within a bound. Knows nothing about what becomes of them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};

/// The argument that stands for stdin.
const STDIN: &str = "-";

/// The most that is read for a request, in bytes: a server's own limit is far lower.
pub(crate) const LARGEST_REQUEST: u64 = 64 << 20;
/// The most that is read to learn from or to evaluate, in bytes: it is all in memory, and some files never end.
pub(crate) const LARGEST_DATA: u64 = 1 << 30;

/// A text, and what to call its origin in a message.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) origin: String,
}

/// The text of a file, or of stdin where the path is `-`.
///
/// # Errors
/// It can't be read, is not UTF-8 or has more than `largest` bytes.
pub(crate) fn read(path: &Path, largest: u64) -> anyhow::Result<Text> {
    if path.as_os_str() == STDIN {
        return read_from(io::stdin().lock(), "stdin".to_owned(), largest);
    }
    let origin = path.display().to_string();
    let file = File::open(path).with_context(|| format!("can't read {origin}"))?;
    read_from(file, origin, largest)
}

/// The argument itself, or stdin where it is `-`. Taken as it is, a line end at its end included.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_argument(argument: &str, largest: u64) -> anyhow::Result<String> {
    match argument {
        STDIN => Ok(read(Path::new(STDIN), largest)?.text),
        _ => Ok(argument.to_owned()),
    }
}

fn read_from(from: impl Read, origin: String, largest: u64) -> anyhow::Result<Text> {
    let mut bytes = Vec::new();
    let read = from.take(largest + 1).read_to_end(&mut bytes);
    if read.with_context(|| format!("can't read {origin}"))? as u64 > largest {
        bail!("{origin} has more than {largest} bytes, the most that is read");
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow!("{origin} is not UTF-8 text: the byte at offset {offset} can't be read")
    })?;
    Ok(Text { text, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: impl Read) -> String {
        read_from(bytes, "notes.txt".to_owned(), 1000).map(|text| text.text).unwrap_err().to_string()
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let said = error(&b"abc\xff"[..]);
        assert_eq!(said, "notes.txt is not UTF-8 text: the byte at offset 3 can't be read");
    }

    #[test]
    fn a_text_without_end_is_refused() {
        assert_eq!(error(io::repeat(b'y')), "notes.txt has more than 1000 bytes, the most that is read");
        assert_eq!(read_from(&[b'y'; 1000][..], String::new(), 1000).unwrap().text.len(), 1000);
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = read(Path::new("surely/not/here.txt"), 1).map(|text| text.text);
        assert_eq!(missing.unwrap_err().to_string(), "can't read surely/not/here.txt");
    }
}
