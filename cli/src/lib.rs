//! The one binary `chorus` as a library: parse, build, run. It knows every crate and decides nothing.
//!
//! `main.rs` (and the binary under test of the cross-process tests) only calls [`main`].

use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
