//! How a command ends: exit codes, and an error as one line on stderr. Knows nothing about what the commands do.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

/// The command line was well-formed but doesn't make sense; exit code 2, as for every other usage error.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

/// Whoever read our output hung up (`chorus generate ... | head -1`). Not a failure: the command ends quietly.
#[derive(Debug)]
pub(crate) struct OutputClosed;

/// The exit code of what a signal ended, as shells have it for Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The command was ended by the user before it was done, and has said so itself; exit code 130 without another line.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the output was closed")
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted")
    }
}

impl std::error::Error for UsageError {}
impl std::error::Error for OutputClosed {}
impl std::error::Error for Interrupted {}

/// The exit code of a command's result: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A failure is printed as one line
/// on stderr.
pub(crate) fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    note(&format!("{RED}error:{RED:#} {}", one_line(&error)));
    ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
}

/// A warning on stderr, in the same form as an error.
pub(crate) fn warn(sentence: &str) {
    note(&format!("{YELLOW}warning:{YELLOW:#} {sentence}"));
}

/// A line on stderr about what goes on, without its colours where stderr is no terminal.
pub(crate) fn note(line: &str) {
    // Where stderr is gone there is nobody left to tell; that must not stop what goes on.
    let _written = writeln!(anstream::stderr().lock(), "{line}");
}

/// An error with its causes as one line: "context: cause: cause's cause".
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<io::Error>() {
            Some(error) => sentence_of_io_error(error),
            None => cause.to_string(),
        };
        let text = without_backtrace(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        // Libraries quote files as they are, and what is in a file commands no terminal.
        let text = text.replace(char::is_control, "\u{fffd}");
        // Some libraries repeat their cause in their own sentence.
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

/// candle's errors carry a backtrace in their text where RUST_BACKTRACE is set; it is no part of the sentence.
fn without_backtrace(text: &str) -> &str {
    text.split_once("\n   0: ").map_or(text, |(sentence, _)| sentence)
}

/// "connection refused" instead of "Connection refused (os error 111)".
pub(crate) fn sentence_of_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(code) = error.raw_os_error() else {
        return text;
    };
    let text = text.trim_end_matches(&format!(" (os error {code})"));
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let missing = std::fs::read("surely/not/here").unwrap_err();
        let error = Err::<(), _>(missing).context("can't read\nthe config").unwrap_err();
        assert_eq!(one_line(&error), "can't read the config: no such file or directory");
    }

    #[test]
    fn what_is_quoted_of_a_file_commands_no_terminal() {
        let error = anyhow::anyhow!("unknown field `a\u{1b}[2Jb\0`");
        assert_eq!(one_line(&error), "unknown field `a\u{fffd}[2Jb\u{fffd}`");
    }

    #[test]
    fn a_backtrace_is_no_part_of_the_line() {
        let cause = "no device\n   0: candle_core::error::bt\n             at error.rs:260:25\n   1: main\n";
        let error = anyhow::anyhow!("{cause}").context("device \"cuda\" can't be opened");
        assert_eq!(one_line(&error), "device \"cuda\" can't be opened: no device");
    }

    #[test]
    fn a_cause_that_is_already_in_the_sentence_is_not_repeated() {
        let error = anyhow::anyhow!("inner").context("outer: inner");
        assert_eq!(one_line(&error), "outer: inner");
    }
}
