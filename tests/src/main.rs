//! The `chorus` binary for the tests of this package. Knows nothing of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    chorus_cli::main()
}
