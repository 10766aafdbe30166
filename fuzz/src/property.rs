//! What holds of every decoder: its errors are sentences on one line, and it takes no more memory than its input allows.

use std::env;
use std::error::Error;

/// Where errors carry backtraces, the symbols of the whole program are read for the first one.
const SYMBOLS: usize = 256 << 20;

/// Runs something that may hold so many bytes at a time beyond those that were there before, on this thread.
///
/// # Panics
/// It held more.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_backtraces = env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0");
    let bytes = if has_backtraces { bytes.saturating_add(SYMBOLS) } else { bytes };
    let mut result = None;
    let held = allocation_counter::measure(|| result = Some(work()));
    assert!(held.bytes_max <= bytes as u64, "{} bytes at a time, allowed are {bytes}", held.bytes_max);
    #[expect(clippy::unwrap_used, reason = "the closure has run")]
    result.unwrap()
}

/// A message about a file is not empty and no longer than `most` characters. What libraries quote of it stands there as it is:
/// whoever shows it to people takes care of that.
///
/// # Panics
/// It is not so.
pub fn assert_bounded(message: &str, most: usize) {
    let characters = message.chars().count();
    assert!((1..=most).contains(&characters), "a message of {characters} characters: {message:.300}");
}

/// A message for people stays on its line, is not empty, and is no longer than `most` characters.
///
/// # Panics
/// It is not so.
pub fn assert_one_line(message: &str, most: usize) {
    assert_bounded(message, most);
    assert!(!message.chars().any(char::is_control), "control characters in {message:?}");
}

/// An error with its causes, as people read it.
pub fn sentence(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| Error::source(*cause));
    causes.fold(error.to_string(), |sentence, cause| format!("{sentence}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "bytes at a time, allowed are")]
    fn more_memory_than_allowed_is_found() {
        within(99, || vec![0_u8; 100 + SYMBOLS].len());
    }

    #[test]
    #[should_panic(expected = "control characters")]
    fn a_second_line_is_found() {
        assert_one_line("one\ntwo", 10);
    }
}
