//! The one binary `chorus` as a library: parse, build, run. It knows every crate and decides nothing.
//!
//! `main.rs` (and the binary under test of the cross-process tests) only calls [`main`].

mod client;
mod failure;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Serves an ensemble of language models as one model.
#[derive(Debug, Parser)]
#[command(name = "chorus", version, propagate_version = true, max_term_width = 120)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(client::GenerateArgs),
    Score(client::ScoreArgs),
    Predict(client::PredictArgs),
    Status(client::StatusArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    failure::exit_code(run(CommandLine::parse().command))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(arguments) => client_runtime()?.block_on(client::generate(arguments)),
        Command::Score(arguments) => client_runtime()?.block_on(client::score(arguments)),
        Command::Predict(arguments) => client_runtime()?.block_on(client::predict(arguments)),
        Command::Status(arguments) => client_runtime()?.block_on(client::status(arguments)),
    }
}

/// One request at a time needs one thread.
fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the asynchronous runtime")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
