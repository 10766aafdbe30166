//! What is said of a test that can't run here. Knows nothing about why.

use std::io::Write as _;

/// Says that a test, or a part of it, did not run, past the harness, which hides what a test prints that passes.
///
/// # Panics
/// Nothing may be skipped: `CHORUS_NO_SKIPS` is set.
pub fn skipped(test: &str, why: &str) {
    assert!(std::env::var_os("CHORUS_NO_SKIPS").is_none(), "{test} can't run: {why}");
    // Nobody is left to tell where even that can't be written.
    let _ = writeln!(std::io::stderr(), "{test}: skipped, {why}");
}
