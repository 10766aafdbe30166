//! The one binary `chorus` as a library: parse, build, run. It knows every crate and decides nothing.
//!
//! `main.rs` (and the binary under test of the cross-process tests) only calls [`main`].

mod client;
mod failure;
mod train;

use std::{future::Future, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

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
    Train(Box<train::TrainArgs>),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    failure::exit_code(run(CommandLine::parse().command))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(arguments) => block_on_client(client::generate(arguments)),
        Command::Score(arguments) => block_on_client(client::score(arguments)),
        Command::Predict(arguments) => block_on_client(client::predict(arguments)),
        Command::Status(arguments) => block_on_client(client::status(arguments)),
        Command::Train(arguments) => train::run(*arguments),
    }
}

/// One request at a time needs one thread.
fn block_on_client(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    block_on(Builder::new_current_thread(), command)
}

fn block_on(mut runtime: Builder, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime
        .enable_all()
        .build()
        .context("can't start the asynchronous runtime")?;
    let result = runtime.block_on(command);
    // What is still running was meant to be given up: nothing may keep the process from ending.
    runtime.shutdown_background();
    result
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
