//! The binary `chorus`. Everything is in the library, so that the cross-process tests can build the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    chorus_cli::main()
}
