//! `chorus bench`: load tests of an ensemble, of the coordinator alone, and of this machine.
//!
//! Parse, build, run, show: what is called, measured and judged is `chorus-load`'s.

mod args;
mod command;
mod growth;
mod in_process;
mod local;
mod measure;
mod overload;
mod progress;
mod ramp;
mod step;
mod table;
mod target;
mod tax;

pub(crate) use command::BenchArgs;

use command::BenchCommand;

/// Runs the command.
///
/// # Errors
/// What should be measured can't be reached or started, refuses, or answered nothing.
pub(crate) async fn run(arguments: BenchArgs) -> anyhow::Result<()> {
    match arguments.command {
        None => target::run(arguments.bench).await,
        Some(BenchCommand::Growth(arguments)) => growth::run(*arguments).await,
        Some(BenchCommand::Tax(arguments)) => tax::run(arguments).await,
        Some(BenchCommand::Step(arguments)) => step::run(arguments).await,
    }
}
